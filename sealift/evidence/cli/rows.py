"""Any of the formats as readable rows: (field, value)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats import certificate_table as certificates
from sealift.evidence.formats import sev_policy
from sealift.evidence.formats.crl import parse_crl
from sealift.evidence.formats.detection import Format, Item
from sealift.evidence.formats.endorsement import SUBJECTS, read_endorsement
from sealift.evidence.formats.firmware import parse_firmware
from sealift.evidence.formats.id_block import parse_id_auth, parse_id_block
from sealift.evidence.formats.launch_measurement import parse_measurement
from sealift.evidence.formats.launch_session import parse_session
from sealift.evidence.formats.platform_chain import split_certificates
from sealift.evidence.formats.sev_attestation_report import parse_attestation_report
from sealift.evidence.formats.sev_certificate import USAGES, SevCertificate
from sealift.evidence.formats.snp_report import PlatformBit, PolicyBit, parse_snp_report
from sealift.evidence.formats.tcb import decode_tcb, generation_of_cpu
from sealift.evidence.formats.x509_certificate import parse_x509
from sealift.evidence.verify.roots import LEGACY_ROOTS, X509_ROOTS
from sealift.evidence.verify.signatures import id_key_signed

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import IntFlag

Rows = list[tuple[str, str]]


def describe(item: Item) -> Rows:
    """The rows of one item. Raises UnusableInput if it is damaged."""
    return _DESCRIBERS[item.format](item.data)


def _describe_report(data: bytes) -> Rows:
    signed = parse_snp_report(data)
    report = signed.fields
    generation = generation_of_cpu(*report.cpuid[:2]) if report.cpuid else None

    def levels(raw: bytes) -> str:
        return f"{raw.hex()} ({decode_tcb(raw, generation)})" if generation else raw.hex()

    signer = report.signer.name if report.signer is not None else f"unknown ({report.signer_number})"
    rows = [
        ("version", str(report.version)),
        ("guest svn", str(report.guest_svn)),
        ("policy", f"{report.policy:#x} ({_bits(PolicyBit, report.policy)}; ABI {_dotted(report.abi)})"),
        ("family id", report.family_id.hex()),
        ("image id", report.image_id.hex()),
        ("VMPL", str(report.vmpl)),
        ("signature algorithm", str(report.signature_algorithm)),
        ("current TCB", levels(report.current_tcb)),
        ("platform info", f"{report.platform_info:#x} ({_bits(PlatformBit, report.platform_info)})"),
        ("author key", "enabled" if report.author_key_enabled else "not enabled"),
        ("chip id masked", "yes" if report.chip_masked else "no"),
        ("signed by", signer),
        ("report data", report.report_data.hex()),
        ("measurement", report.measurement.hex()),
        ("host data", report.host_data.hex()),
        ("id key digest", report.id_key_digest.hex()),
        ("author key digest", report.author_key_digest.hex()),
        ("report id", report.report_id.hex()),
        ("migration agent's report id", report.report_id_ma.hex()),
        ("reported TCB", levels(report.reported_tcb)),
    ]
    if report.cpuid:
        name = generation.value if generation else "unknown generation"
        rows.append(("family, model, stepping", f"{_dotted(report.cpuid)} ({name})"))
    rows += [
        ("chip id", report.chip_id.hex()),
        ("committed TCB", levels(report.committed_tcb)),
        ("current version", _dotted(report.current_version)),
        ("committed version", _dotted(report.committed_version)),
        ("launch TCB", levels(report.launch_tcb)),
    ]
    if report.launch_mitigations is not None and report.current_mitigations is not None:
        rows.append(("launch mitigations", f"{report.launch_mitigations:#x}"))
        rows.append(("current mitigations", f"{report.current_mitigations:#x}"))
    return rows


def _describe_x509(data: bytes) -> Rows:
    certificate = parse_x509(data)
    rows = [
        ("subject", certificate.subject_name),
        ("issuer", certificate.issuer_name),
        ("serial", str(certificate.serial)),
        ("valid from", f"{certificate.not_before:%Y-%m-%dT%H:%M:%SZ}"),
        ("valid to", f"{certificate.not_after:%Y-%m-%dT%H:%M:%SZ}"),
        ("SHA-256", certificate.sha256),
    ]
    if certificate.sha256 in X509_ROOTS:
        rows.append(("pinned root of", X509_ROOTS[certificate.sha256]))
    if certificate.subject_name in SUBJECTS:
        try:
            endorsement = read_endorsement(certificate)
        except UnusableInput as error:
            return [*rows, ("endorses", f"unreadable: {error.message}")]
        rows += [("product", endorsement.product), ("TCB", str(endorsement.tcb))]
        if endorsement.chip_id is not None:
            rows.append(("chip id", endorsement.chip_id.hex()))
        if endorsement.provider is not None:
            rows.append(("provider", endorsement.provider))
    return rows


def _describe_crl(data: bytes) -> Rows:
    crl = parse_crl(data)
    return [
        ("issuer", crl.issuer_name),
        ("number", str(crl.number)),
        ("this update", f"{crl.this_update:%Y-%m-%dT%H:%M:%SZ}"),
        ("next update", f"{crl.next_update:%Y-%m-%dT%H:%M:%SZ}" if crl.next_update else "never"),
        ("revoked serials", ", ".join(map(str, sorted(crl.revoked))) or "none"),
    ]


def _describe_table(data: bytes) -> Rows:
    return [
        (certificates.NAMES.get(name, str(name)), f"{len(content)} bytes")
        for name, content in certificates.parse_certificate_table(data).items()
    ]


def _describe_platform(data: bytes) -> Rows:
    rows: Rows = []
    for certificate in split_certificates(data):
        name = certificate.usage_name
        rows.append((name, f"version {certificate.version}, {len(certificate.raw)} bytes"))
        if isinstance(certificate, SevCertificate):
            rows.append((f"{name} API", f"{certificate.api_major}.{certificate.api_minor}"))
            rows.append((f"{name} SHA-256", hashlib.sha256(certificate.raw).hexdigest()))
            signers = ", ".join(_slot_name(slot.usage) for slot in certificate.slots)
            rows.append((f"{name} signature slots", signers))
            continue
        rows.append((f"{name} SHA-256", certificate.sha256))
        rows.append((f"{name} key id", certificate.key_id.hex()))
        rows.append((f"{name} certifying id", certificate.certifying_id.hex()))
        rows.append((f"{name} modulus", f"{certificate.modulus_bits} bits"))
        if certificate.sha256 in LEGACY_ROOTS:
            rows.append((f"{name} pinned root of", LEGACY_ROOTS[certificate.sha256]))
    return rows


def _describe_session(data: bytes) -> Rows:
    session = parse_session(data)
    return [
        ("nonce", session.nonce.hex()),
        ("wrapped keys", session.wrapped_keys.hex()),
        ("wrap iv", session.wrap_iv.hex()),
        ("wrap MAC", session.wrap_mac.hex()),
        ("policy MAC", session.policy_mac.hex()),
    ]


def _describe_measurement(data: bytes) -> Rows:
    measurement = parse_measurement(data)
    return [("MAC", measurement.mac.hex()), ("nonce", measurement.nonce.hex())]


def _describe_attestation(data: bytes) -> Rows:
    report = parse_attestation_report(data)
    return [
        ("nonce", report.nonce.hex()),
        ("launch digest", report.digest.hex()),
        ("policy", sev_policy.describe(report.policy)),
        ("signed by usage", f"{report.signature_usage:#x}"),
        ("algorithm", f"{report.signature_algorithm:#x}"),
    ]


def _describe_secret_header(data: bytes) -> Rows:
    flags = int.from_bytes(data[:4], "little")
    return [("flags", f"{flags:#x}"), ("iv", data[4:20].hex()), ("MAC", data[20:].hex())]


def _describe_id_block(data: bytes) -> Rows:
    block = parse_id_block(data)
    return [
        ("launch digest", block.launch_digest.hex()),
        ("family id", block.family_id.hex()),
        ("image id", block.image_id.hex()),
        ("version", str(block.version)),
        ("guest svn", str(block.guest_svn)),
        ("policy", f"{block.policy:#x} ({_bits(PolicyBit, block.policy)})"),
    ]


def _describe_id_auth(data: bytes) -> Rows:
    auth = parse_id_auth(data)
    rows = [
        ("id key algorithm", str(auth.id_algorithm)),
        ("author key algorithm", str(auth.author_algorithm)),
        ("id key digest", auth.id_key_digest.hex()),
    ]
    if auth.has_author:
        rows.append(("author key digest", auth.author_key_digest.hex()))
        rows.append(("author signs id key", "yes" if id_key_signed(auth) else "no"))
    return rows


def _describe_firmware(data: bytes) -> Rows:
    firmware = parse_firmware(data)
    rows = [
        ("size", f"{len(data)} bytes"),
        ("SHA-256", hashlib.sha256(data).hexdigest()),
        ("kernel hashes", f"at {firmware.hash_table_address:#x}" if firmware.hash_table_address else "none"),
        ("second processor starts at", f"{firmware.reset_address:#x}" if firmware.reset_address else "-"),
    ]
    rows += [
        (each.kind.name.lower().replace("_", " "), f"{each.size:#x} bytes at {each.address:#x}")
        for each in firmware.sections
    ]
    return rows


def _describe_vmsa(data: bytes) -> Rows:
    def number(at: int, size: int) -> str:
        return f"{int.from_bytes(data[at : at + size], 'little'):#x}"

    return [
        ("code segment base", number(0x18, 8)),
        ("rip", number(0x178, 8)),
        ("rdx (processor signature)", number(0x310, 8)),
        ("SEV features", number(0x3B0, 8)),
        ("SHA-256", hashlib.sha256(data).hexdigest()),
    ]


def _bits(flags: type[IntFlag], value: int) -> str:
    names = [flag.name.lower().replace("_", "-") for flag in flags if value & flag and flag.name]
    return ", ".join(names) or "none set"


def _slot_name(usage: int) -> str:
    return USAGES.get(usage, f"{usage:#x}")


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


_DESCRIBERS: dict[Format, Callable[[bytes], Rows]] = {
    Format.SNP_REPORT: _describe_report,
    Format.X509: _describe_x509,
    Format.CRL: _describe_crl,
    Format.CERTIFICATE_TABLE: _describe_table,
    Format.ID_BLOCK: _describe_id_block,
    Format.ID_AUTH: _describe_id_auth,
    Format.PLATFORM: _describe_platform,
    Format.SESSION: _describe_session,
    Format.MEASUREMENT: _describe_measurement,
    Format.ATTESTATION: _describe_attestation,
    Format.SECRET_HEADER: _describe_secret_header,
    Format.FIRMWARE: _describe_firmware,
    Format.VMSA: _describe_vmsa,
}
