"""The properties that an emulated chip reports. All can be set, so that a test can cause every rejection."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sealift.errors import UnusableInput
from sealift.evidence.formats.snp_report import PlatformBit, Signer
from sealift.evidence.formats.tcb import Generation, Tcb
from sealift.evidence.verify.tcb_floors import ALIAS_CHECK_SINCE
from sealift.processor.wire import from_json, to_json

CPUIDS = {
    Generation.MILAN: (0x19, 0x01, 0x1),
    Generation.GENOA: (0x19, 0x11, 0x1),
    Generation.TURIN: (0x1A, 0x02, 0x1),
}
PRODUCTS = {Generation.MILAN: "Milan-B0", Generation.GENOA: "Genoa", Generation.TURIN: "Turin-B0"}
TCBS = {
    Generation.MILAN: Tcb(boot_loader=4, snp=0x18, microcode=0xDB),
    Generation.GENOA: Tcb(boot_loader=10, snp=0x17, microcode=0x54),
    Generation.TURIN: Tcb(boot_loader=1, tee=1, snp=4, microcode=0x50, fmc=1),
}
"""Levels at the floor of AMD-SB-3019, which the strict default policy accepts."""


@dataclass(frozen=True)
class Profile:
    """Settings of a chip. None: the value of the generation's current chips."""

    generation: Generation = Generation.MILAN
    signer: Signer = Signer.VCEK
    provider: str = "sealift-emulated.example"
    mask_chip: bool = False
    report_version: int = 3
    platform_info: int = int(PlatformBit.SMT | PlatformBit.ECC | PlatformBit.ALIAS_CHECK)
    cpuid: tuple[int, int, int] | None = None
    current_tcb: Tcb | None = None
    reported_tcb: Tcb | None = None
    committed_tcb: Tcb | None = None
    launch_tcb: Tcb | None = None
    current_version: tuple[int, int, int] | None = None
    committed_version: tuple[int, int, int] | None = None
    launch_mitigations: int = 0
    current_mitigations: int = 0
    api_major: int = 1
    api_minor: int = 55
    build: int = 40
    migration_agent: bytes = b"\xff" * 32

    def tcb(self, name: str) -> Tcb:
        """The TCB of one kind: current, reported, committed or launch. One that is not set equals the current one."""
        chosen: Tcb | None = getattr(self, f"{name}_tcb")
        return chosen or self.current_tcb or TCBS[self.generation]

    def version(self, name: str) -> tuple[int, int, int]:
        """The current or committed version. Unless it is set, it has the alias check."""
        chosen: tuple[int, int, int] | None = getattr(self, f"{name}_version")
        return chosen or self.current_version or max((1, 55, 40), ALIAS_CHECK_SINCE[self.generation])

    def changed(self, changes: dict[str, Any]) -> Profile:
        """The profile with some settings replaced, given as JSON. UnusableInput names a wrong one."""
        known = {each.name for each in dataclasses.fields(self)}
        if unknown := sorted(changes.keys() - known):
            raise UnusableInput(
                f"an emulated processor has no setting {unknown[0][:40]!r}",
                remedy=f"It has {', '.join(sorted(known))}",
            )
        return from_json(Profile, {**to_json(self), **changes}, "the emulated processor's profile")
