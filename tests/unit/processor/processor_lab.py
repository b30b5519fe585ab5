"""An owner, a machine with an emulated processor, and an image small enough to be measured in no time."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sealift.evidence.formats.certificate_table import ARK, parse_certificate_table
from sealift.evidence.formats.launch_measurement import parse_measurement
from sealift.evidence.formats.x509_certificate import parse_x509
from sealift.evidence.launch.digest import Mode
from sealift.evidence.launch.session import Launch, create_session
from sealift.evidence.verify.policy import ExtraRoot, Policy
from sealift.evidence.verify.sev_launch import LaunchEvidence, verify_launch
from sealift.evidence.verify.sev_platform import verify_platform
from sealift.evidence.verify.snp import verify_snp
from sealift.processor.certificates import snp_evidence
from sealift.processor.interface import SevLaunch, SnpLaunch
from sealift.processor.measured import MeasuredImage

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.evidence.verify.verdict import Verdict
    from sealift.processor.emulated.client import EmulatedProcessor
    from sealift_guest.processor import Guest, Report

_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
_HASH_TABLE = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
_RESET_BLOCK = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
_SECTIONS = (
    (0x800000, 0x9000, 1),
    (0x80A000, 0x3000, 1),
    (0x80D000, 0x1000, 2),
    (0x80E000, 0x1000, 3),
    (0x810000, 0x1000, 0x10),
)


def make_firmware(*, kernel_hashes: bool = True, filling: bytes = b"\xf4") -> bytes:
    """64 KiB with the table that OVMF's AmdSev build ends in."""

    def entry(name: UUID, data: bytes) -> bytes:
        return data + struct.pack("<H", len(data) + 18) + name.bytes_le

    sections = b"".join(struct.pack("<III", *each) for each in _SECTIONS)
    metadata = struct.pack("<4sIII", b"ASEV", 16 + len(sections), 1, len(_SECTIONS)) + sections
    body = entry(_METADATA, struct.pack("<I", 4096)) + entry(_RESET_BLOCK, struct.pack("<I", 0x80B004))
    if kernel_hashes:
        body += entry(_HASH_TABLE, struct.pack("<II", 0x810C00, 0x400))
    table = body + struct.pack("<H", len(body) + 18) + _FOOTER.bytes_le
    image = bytearray(filling * 65536)
    image[-4096 : -4096 + len(metadata)] = metadata
    image[-32 - len(table) : -32] = table
    return bytes(image)


def make_image(folder: Path, **changes: Any) -> MeasuredImage:
    contents = {"firmware": make_firmware(), "kernel": b"kernel" * 500, "initrd": b"initrd" * 500}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    fields: dict[str, Any] = {name: folder / name for name in contents}
    fields |= {"append": "root=/dev/dm-0 ro", "vcpus": 2, "cpu": "EPYC-Milan"}
    return MeasuredImage(**fields | changes)


def reasons(verdict: Verdict) -> set[str]:
    return {each.check for each in verdict.reasons}


@dataclass
class Lab:
    """The machine, and what its owner does."""

    processor: EmulatedProcessor
    guest: Guest
    image: MeasuredImage
    owner: Launch | None = field(default=None, repr=False)

    def snp_root(self) -> ExtraRoot:
        table = self.processor.platform(Mode.SNP).certificate_table
        return ExtraRoot(sha256=parse_x509(parse_certificate_table(table)[ARK]).sha256, name="lab")

    def snp_policy(self, *, named: bool = True, **rules: Any) -> Policy:
        strict: dict[str, Any] = {
            "require_crl": True,
            "require_report_data": True,
            "measurements": [self.image.digest(Mode.SNP).hex()],
        }
        roots = [self.snp_root().model_dump()] if named else []
        return Policy.model_validate({"extra_roots": roots, "snp": strict | rules})

    def sev_policy(self, *, named: bool = True, **rules: Any) -> Policy:
        ark = self.processor.platform(Mode.SEV).chain().ark
        assert ark is not None
        roots = [ExtraRoot(sha256=ark.sha256, name="lab").model_dump()] if named else []
        return Policy.model_validate({"extra_roots": roots, "sev": rules})

    def start_snp(self, **launch: Any) -> None:
        self.processor.begin(SnpLaunch(**launch), self.image)
        self.processor.finish()

    def snp_verdict(self, report: Report, wanted: bytes, policy: Policy | None = None) -> Verdict:
        evidence = snp_evidence(report.report, report.certificate_table)
        return verify_snp(evidence, policy or self.snp_policy(), at=datetime.now(UTC), report_data=wanted)

    def start_sev(self, launch_policy: int, **changes: Any) -> SevLaunch:
        chain = self.processor.platform(Mode.SEV).chain()
        assert chain.pdh is not None
        self.owner = create_session(chain.pdh, launch_policy)
        fields = {
            "policy": launch_policy,
            "session": self.owner.session.pack(),
            "owner_certificate": self.owner.owner_certificate.raw,
        }
        launch = SevLaunch(**fields | changes)
        self.processor.begin(launch, self.image)
        return launch

    def platform_verdict(self, policy: Policy | None = None) -> Verdict:
        return verify_platform(self.processor.platform(Mode.SEV).chain(), policy or self.sev_policy())

    def launch_verdict(self, measurement: bytes, policy: Policy | None = None, **changes: Any) -> Verdict:
        assert self.owner is not None
        mode = Mode.SEVES if self.owner.policy & 4 else Mode.SEV
        status = self.processor.status()
        fields: dict[str, Any] = {
            "measurement": parse_measurement(measurement),
            "firmware": status.firmware,
            "policy": self.owner.policy,
            "digests": (self.image.digest(mode),),
            "tik": self.owner.keys.tik,
        }
        return verify_launch(LaunchEvidence(**fields | changes), policy or self.sev_policy())
