"""Every parser of the library, and seeds of what each reads: for hypothesis in CI and atheris outside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from evidence_lab import LegacyLab, SnpLab

from sealift.evidence.cli.rows import describe
from sealift.evidence.formats import certificate_table as table
from sealift.evidence.formats.amd_certificate import parse_amd_certificate
from sealift.evidence.formats.armour import unarmour
from sealift.evidence.formats.crl import parse_crl
from sealift.evidence.formats.detection import identify
from sealift.evidence.formats.endorsement import read_endorsement
from sealift.evidence.formats.firmware import parse_firmware
from sealift.evidence.formats.guest_messages import (
    ReportRequest,
    pack_response,
    parse_request,
    parse_response,
)
from sealift.evidence.formats.id_block import IdBlock, parse_id_auth, parse_id_block
from sealift.evidence.formats.launch_measurement import parse_measurement
from sealift.evidence.formats.launch_secret import pack_secret_table, parse_secret_packet, parse_secret_table
from sealift.evidence.formats.launch_session import parse_session
from sealift.evidence.formats.layout import hex_bytes
from sealift.evidence.formats.loading import load_certificates, load_crls, load_platform, load_report
from sealift.evidence.formats.platform_chain import split_certificates
from sealift.evidence.formats.sev_attestation_report import build_attestation_report, parse_attestation_report
from sealift.evidence.formats.sev_certificate import parse_sev_certificate
from sealift.evidence.formats.snp_report import parse_snp_report
from sealift.evidence.formats.x509_certificate import parse_x509
from sealift.evidence.launch.digest import Mode, Processors, launch_digest
from sealift.evidence.launch.id_authentication import authenticate
from sealift.evidence.launch.session import create_session
from sealift.evidence.verify.policy import Policy, parse_policy, write_policy
from sealift.evidence.verify.signatures import id_key_signed, sev_certificate_signed_by, x509_signed_by

Target = Callable[[bytes], object]


def _x509(data: bytes) -> None:
    certificate = parse_x509(data)
    _ = certificate.may_sign_certificates
    x509_signed_by(certificate, certificate)
    read_endorsement(certificate)


def _sev(data: bytes) -> None:
    certificate = parse_sev_certificate(data)
    sev_certificate_signed_by(certificate, certificate)


def _firmware(data: bytes) -> None:
    firmware = parse_firmware(data)
    if len(data) <= 8192 and sum(each.size for each in firmware.sections) <= 1 << 20:
        launch_digest(Mode.SNP, firmware, None, Processors())


def _show(data: bytes) -> None:
    for item in identify(data):
        describe(item)


def _secret_packet(data: bytes) -> object:
    return parse_secret_packet(data[:52], data[52:])


def _text(parse: Callable[[str], object]) -> Target:
    return lambda data: parse(data.decode("utf-8", "replace"))


TARGETS: dict[str, Target] = {
    "amd_certificate": parse_amd_certificate,
    "sev_certificate": _sev,
    "platform": split_certificates,
    "load_platform": lambda data: load_platform([data]),
    "session": parse_session,
    "measurement": parse_measurement,
    "secret_packet": _secret_packet,
    "secret_table": parse_secret_table,
    "attestation_report": parse_attestation_report,
    "firmware": _firmware,
    "snp_report": parse_snp_report,
    "x509": _x509,
    "crl": parse_crl,
    "id_block": parse_id_block,
    "id_auth": lambda data: id_key_signed(parse_id_auth(data)),
    "certificate_table": table.parse_certificate_table,
    "request": parse_request,
    "response": parse_response,
    "policy": parse_policy,
    "hex": _text(lambda text: hex_bytes(text, "the input")),
    "unarmour": unarmour,
    "load_report": load_report,
    "load_certificates": load_certificates,
    "load_crls": load_crls,
    "show": _show,
}


def firmware_image() -> bytes:
    """A page of firmware with a table of all three entries and SNP metadata of every kind of section."""
    from uuid import UUID

    def entry(guid: str, data: bytes) -> bytes:
        return data + (len(data) + 18).to_bytes(2, "little") + UUID(guid).bytes_le

    sections = [(0x800000, 0x2000, 1), (0x802000, 0x1000, 2), (0x803000, 0x1000, 3), (0x804000, 0x1000, 16)]
    metadata = b"ASEV" + b"".join(
        n.to_bytes(4, "little") for n in (16 + 12 * len(sections), 1, len(sections))
    )
    metadata += b"".join(n.to_bytes(4, "little") for section in sections for n in section)
    offset_from_end = 1024
    entries = (
        entry("dc886566-984a-4798-a75e-5585a7bf67cc", offset_from_end.to_bytes(4, "little"))
        + entry("7255371f-3a3b-4b04-927b-1da6efa8d454", (0x804C00).to_bytes(4, "little") + bytes(4))
        + entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", (0x80B004).to_bytes(4, "little"))
    )
    footer = (len(entries) + 18).to_bytes(2, "little")
    footer += UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    end = entries + footer + bytes(32)
    image = bytearray(4096)
    image[-len(end) :] = end
    at = 4096 - offset_from_end
    image[at : at + len(metadata)] = metadata
    return bytes(image)


def seeds() -> dict[str, bytes]:
    """A good input for each target, from labs of our own."""
    snp, legacy = SnpLab.create(), LegacyLab.create(2048)
    evidence = snp.evidence(crls=(snp.crl(revoked=[1, 2]),))
    chain = legacy.chain
    assert chain.ark is not None
    assert chain.pek is not None
    assert chain.pdh is not None
    id_block = IdBlock(bytes(48)).pack()
    secrets = pack_secret_table({table.VCEK: b"one", table.ARK: b"two"})
    packed = table.pack_certificate_table({table.VCEK: evidence.key.der, table.ARK: evidence.chain[1].der})
    attestation = build_attestation_report(legacy.pek, nonce=bytes(16), digest=bytes(32), policy=5)
    report = replace(evidence.report.fields, version=5)
    found = {
        "amd_certificate": chain.ark.raw,
        "sev_certificate": chain.pek.raw,
        "platform": chain.export(),
        "load_platform": chain.export(),
        "session": create_session(chain.pdh, 0xF).session.pack(),
        "measurement": bytes(48),
        "secret_packet": bytes(52 + 32),
        "secret_table": secrets,
        "attestation_report": attestation.raw,
        "firmware": firmware_image(),
        "snp_report": report.pack().ljust(1184, b"\0"),
        "x509": evidence.key.der,
        "crl": evidence.crls[0].der,
        "id_block": id_block,
        "id_auth": authenticate(id_block, snp.key, snp.key).pack(),
        "certificate_table": packed,
        "request": ReportRequest(bytes(64)).pack(),
        "response": pack_response(evidence.report.raw),
        "policy": write_policy(Policy()).encode(),
        "hex": b"0x00 11 22",
        "unarmour": b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        "load_report": evidence.report.raw.hex().encode(),
        "load_certificates": packed,
        "load_crls": evidence.crls[0].der,
        "show": evidence.key.der,
    }
    assert found.keys() == TARGETS.keys()
    return found
