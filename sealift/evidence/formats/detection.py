"""Which of the formats a file has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sealift.errors import UnusableInput
from sealift.evidence.formats import (
    der,
    guest_messages,
    id_block,
    launch_measurement,
    launch_secret,
    launch_session,
    platform_chain,
    sev_attestation_report,
    snp_report,
)
from sealift.evidence.formats.armour import CHAIN_LIMIT, split_der, unarmour
from sealift.evidence.formats.certificate_table import is_certificate_table
from sealift.evidence.formats.firmware import parse_firmware
from sealift.evidence.formats.layout import PAGE_BYTES

_SEV_SIZES = (2084, 1600, 832)
_RESET_CODE_SEGMENT = b"\x00\xf0"
_CURVE_P384 = b"\x02\0\0\0"


class Format(StrEnum):
    """The formats that a file can have."""

    SNP_REPORT = "SEV-SNP attestation report"
    X509 = "X.509 certificate"
    CRL = "certificate revocation list"
    CERTIFICATE_TABLE = "certificate table"
    ID_BLOCK = "SNP id block"
    ID_AUTH = "SNP id authentication block"
    PLATFORM = "SEV platform certificates"
    SESSION = "SEV launch session"
    MEASUREMENT = "SEV launch measurement"
    ATTESTATION = "SEV attestation report"
    SECRET_HEADER = "SEV launch secret header"  # noqa: S105 - the name of a format
    FIRMWARE = "guest firmware"
    VMSA = "VMSA page"


@dataclass(frozen=True, slots=True)
class Item:
    """Data of a known format, as raw bytes."""

    format: Format
    data: bytes


def identify(data: bytes) -> list[Item]:
    """The contents of a file. Raises UnusableInput if it has none of the formats."""
    return [item for block in unarmour(data) for item in _identify_block(block)]


def _identify_block(block: bytes) -> list[Item]:
    by_size = {
        snp_report.SIZE: Format.SNP_REPORT,
        id_block.BLOCK_BYTES: Format.ID_BLOCK,
        launch_session.SIZE: Format.SESSION,
        launch_measurement.SIZE: Format.MEASUREMENT,
        sev_attestation_report.SIZE: Format.ATTESTATION,
        launch_secret.HEADER_BYTES: Format.SECRET_HEADER,
    }
    size = len(block)
    if is_certificate_table(block):
        return [Item(Format.CERTIFICATE_TABLE, block)]
    if block[:1] == b"\x30" and size <= CHAIN_LIMIT:
        found = _identify_der(block)
        if found:
            return found
    if size in by_size:
        return [Item(by_size[size], block)]
    if size == guest_messages.RESPONSE_BYTES:
        return [Item(Format.SNP_REPORT, guest_messages.parse_response(block).raw)]
    if size in _SEV_SIZES or size <= platform_chain.SIZE_LIMIT:
        try:
            platform_chain.split_certificates(block)
        except UnusableInput:
            pass
        else:
            return [Item(Format.PLATFORM, block)]
    return _identify_large(block)


def _identify_large(block: bytes) -> list[Item]:
    try:
        firmware = parse_firmware(block)
    except UnusableInput:
        firmware = None
    if firmware is not None and (firmware.reset_address is not None or firmware.sections):
        return [Item(Format.FIRMWARE, block)]
    if len(block) == PAGE_BYTES and block[0x10:0x12] == _RESET_CODE_SEGMENT:
        return [Item(Format.VMSA, block)]
    if len(block) == id_block.AUTH_BYTES and block[0x240:0x244] == _CURVE_P384:
        return [Item(Format.ID_AUTH, block)]
    raise UnusableInput(
        f"{len(block)} bytes of a format that Sealift does not know",
        remedy="Give a report, certificate, chain, CRL, session, measurement, id block or firmware",
    )


def _identify_der(block: bytes) -> list[Item]:
    try:
        pieces = split_der(block)
    except UnusableInput:
        return []
    return [Item(_kind_of_der(piece), piece) for piece in pieces]


def _kind_of_der(piece: bytes) -> Format:
    """Certificate or CRL, by the first element inside the signed part: a version tag or a number."""
    what = "this file"
    to_sign = der.read_whole(piece, what).sequence(what, 3)[0]
    first = to_sign.sequence(what, 1)[0]
    return Format.X509 if first.tag == der.explicit(0) else Format.CRL
