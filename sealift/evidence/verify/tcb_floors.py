"""The lowest TCB levels that are accepted of each processor part, from AMD's security bulletins."""

from __future__ import annotations

from enum import StrEnum

from sealift.evidence.formats.tcb import Generation


class Part(StrEnum):
    """Processors with microcode versions of their own: a floor applies to one part only."""

    MILAN = "milan"
    MILAN_X = "milan-x"
    GENOA = "genoa"
    GENOA_X = "genoa-x"
    BERGAMO = "bergamo"  # and Siena
    TURIN = "turin"


# (family, model, stepping) of parts whose microcode has its own floor.
_PARTS = {
    (0x19, 0x01, 0x1): Part.MILAN,
    (0x19, 0x01, 0x2): Part.MILAN_X,
    (0x19, 0x11, 0x1): Part.GENOA,
    (0x19, 0x11, 0x2): Part.GENOA_X,
    (0x19, 0xA0, 0x2): Part.BERGAMO,
}


# AMD-SB-3019 (CVE-2024-56161, microcode signatures): the lowest levels that attest to the fix. Microcode:
# the last byte of patches 0A0011DB, 0A001244, 0A101154, 0A10124F and 0AA00219. The bulletin names no level
# for Turin: without one in the policy its floor is listed as unchecked.
AMD_SB_3019: dict[Part, dict[str, int]] = {
    Part.MILAN: {"snp": 0x18, "microcode": 0xDB},
    Part.MILAN_X: {"snp": 0x18, "microcode": 0x44},
    Part.GENOA: {"snp": 0x17, "microcode": 0x54},
    Part.GENOA_X: {"snp": 0x17, "microcode": 0x4F},
    Part.BERGAMO: {"snp": 0x17, "microcode": 0x19},
}


# The first firmware, (major, minor, build), that checks memory for aliases and reports it (AMD-SB-3015).
ALIAS_CHECK_SINCE = {
    Generation.MILAN: (1, 55, 22),
    Generation.GENOA: (1, 55, 38),
    Generation.TURIN: (1, 55, 0),
}


def part_of(generation: Generation, cpuid: tuple[int, int, int] | None) -> Part:
    """The part whose floor applies: by the report's CPUID, else the part named like the generation."""
    part = None if cpuid is None else _PARTS.get(cpuid)
    return part or Part(generation.value)
