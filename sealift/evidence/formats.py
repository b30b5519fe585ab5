"""Which of the formats a file holds, and what it holds: raw, hexadecimal, base64, PEM or DER."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence import attestation_report as legacy_report
from sealift.evidence import certificate_table as table_format
from sealift.evidence import der, guest_messages, id_block, measurement, platform_chain, secret, session
from sealift.evidence import snp_report as report_format
from sealift.evidence.crl import Crl, parse_crl
from sealift.evidence.firmware import parse_firmware
from sealift.evidence.layout import PAGE_BYTES
from sealift.evidence.x509_certificate import SIZE_LIMIT as X509_LIMIT
from sealift.evidence.x509_certificate import X509Certificate, parse_x509

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sealift.evidence.snp_report import SignedReport

# Hexadecimal doubles, line ends add: no format but firmware has more than a quarter of this.
TEXT_LIMIT = 256 * 1024

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\s([A-Za-z0-9+/=\s]*)-----END \1-----")
_PEM_BLOCKS_LIMIT = 8
_CHAIN_LIMIT = 4 * X509_LIMIT
_HEX = re.compile(rb"(?:0x)?[0-9a-fA-F\s]+\Z")
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]+={0,2}\s*\Z")
_CERTIFICATE_GUIDS = (table_format.VCEK, table_format.VLEK, table_format.ASK, table_format.ARK)
_SEV_SIZES = (2084, 1600, 832)
_RESET_CODE_SEGMENT = b"\x00\xf0"
_CURVE_P384 = b"\x02\0\0\0"


class Format(StrEnum):
    """What a file can hold."""

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
    """One thing of a known format, as raw bytes."""

    format: Format
    data: bytes


def unarmour(data: bytes) -> list[bytes]:
    """The raw contents of PEM blocks, hexadecimal or base64 text; else the bytes themselves."""
    if len(data) <= TEXT_LIMIT:
        if b"-----BEGIN " in data:
            return _read_pem(data)
        if data.strip() and _HEX.match(data.strip()):
            digits = b"".join(data.strip().removeprefix(b"0x").split())
            if len(digits) % 2 == 0:
                return [binascii.unhexlify(digits)]
        if data.strip() and _BASE64.match(data):
            try:
                return [base64.b64decode(b"".join(data.split()), validate=True)]
            except binascii.Error:
                return [data]
    return [data]


def identify(data: bytes) -> list[Item]:
    """What is in a file. Raises UnusableInput if it is none of the formats."""
    return [item for block in unarmour(data) for item in _identify_block(block)]


def load_report(data: bytes) -> SignedReport:
    """The SNP report in a file: the report itself, or the kernel's response that holds it."""
    (block, *more) = unarmour(data)
    if not more and len(block) == guest_messages.RESPONSE_BYTES:
        return guest_messages.parse_response(block)
    return report_format.parse_snp_report(block)


def load_certificates(data: bytes) -> list[X509Certificate]:
    """The X.509 certificates in a file: PEM, DER (also several in a row), or a certificate table."""
    pieces: list[bytes] = []
    for block in unarmour(data):
        contents = [block]
        if _is_certificate_table(block):
            table = table_format.parse_certificate_table(block)
            # A provider may add entries of its own: they are not ours to read.
            contents = [table[name] for name in _CERTIFICATE_GUIDS if name in table]
        for content in contents:
            pieces += _split_der(content)
    if not pieces:
        raise UnusableInput("there is no certificate in the table", remedy="Read it from the guest again")
    if len(pieces) > _PEM_BLOCKS_LIMIT or sum(map(len, pieces)) > _CHAIN_LIMIT:
        raise UnusableInput("this is more than any chain of certificates", remedy="Give one chain")
    return [parse_x509(each) for each in pieces]


def load_crls(data: bytes) -> list[Crl]:
    """The CRLs in a file, PEM or DER."""
    return [parse_crl(each) for block in unarmour(data) for each in _split_der(block)]


def load_platform(files: Iterable[bytes]) -> platform_chain.PlatformChain:
    """The platform chain in files that hold its certificates in any order and any number each."""
    return platform_chain.collect_platform(
        certificate
        for data in files
        for block in unarmour(data)
        for certificate in platform_chain.split_certificates(block)
    )


def _read_pem(data: bytes) -> list[bytes]:
    blocks = []
    for match in _PEM.finditer(data):
        try:
            blocks.append(base64.b64decode(b"".join(match[2].split()), validate=True))
        except binascii.Error as error:
            raise UnusableInput("a PEM block is not base64", remedy="Fetch the file again") from error
    if not blocks or len(blocks) != data.count(b"-----BEGIN ") or len(blocks) > _PEM_BLOCKS_LIMIT:
        raise UnusableInput("the PEM text is cut, or has more than 8 blocks", remedy="Fetch the file again")
    return blocks


def _split_der(block: bytes) -> list[bytes]:
    if b"-----BEGIN " in block[:64]:
        return _read_pem(block)
    if len(block) > _CHAIN_LIMIT:
        raise UnusableInput("this is larger than any certificate chain", remedy="AMD's have about 5 KiB")
    pieces: list[bytes] = []
    at = 0
    while at < len(block) and len(pieces) < _PEM_BLOCKS_LIMIT:
        element = der.read(block, at, len(block), "the certificate")
        pieces.append(element.encoded)
        at = element.end
    if at != len(block) or not pieces:
        raise UnusableInput(
            "this is neither a certificate nor a chain of them", remedy="Give it as PEM or DER"
        )
    return pieces


def _is_certificate_table(block: bytes) -> bool:
    known = {name.bytes for name in table_format.NAMES}
    return len(block) >= 48 and block[:16] in known


def _identify_block(block: bytes) -> list[Item]:
    by_size = {
        report_format.SIZE: Format.SNP_REPORT,
        id_block.BLOCK_BYTES: Format.ID_BLOCK,
        session.SIZE: Format.SESSION,
        measurement.SIZE: Format.MEASUREMENT,
        legacy_report.SIZE: Format.ATTESTATION,
        secret.HEADER_BYTES: Format.SECRET_HEADER,
    }
    size = len(block)
    if _is_certificate_table(block):
        return [Item(Format.CERTIFICATE_TABLE, block)]
    if block[:1] == b"\x30" and size <= _CHAIN_LIMIT:
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
        f"{len(block)} bytes of no format that Sealift knows",
        remedy="Give a report, certificate, chain, CRL, session, measurement, id block or firmware",
    )


def _identify_der(block: bytes) -> list[Item]:
    try:
        pieces = _split_der(block)
    except UnusableInput:
        return []
    return [Item(_kind_of_der(piece), piece) for piece in pieces]


def _kind_of_der(piece: bytes) -> Format:
    """Certificate or CRL, by the first element inside the signed part: a version tag or a number."""
    what = "this file"
    to_sign = der.read_whole(piece, what).sequence(what, 3)[0]
    first = to_sign.sequence(what, 1)[0]
    return Format.X509 if first.tag == der.explicit(0) else Format.CRL
