"""Security versions of the firmware of each generation, and the floors below which none is trusted.

SNP ABI, table "TCB_VERSION": the eight bytes mean other things on Turin than before. A generation that is
not known is refused, since reading its bytes by another's layout compares the wrong numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sealift.errors import UnusableInput

TCB_BYTES = 8


class Generation(StrEnum):
    """Generations with SEV-SNP."""

    MILAN = "milan"
    GENOA = "genoa"
    TURIN = "turin"


class SevGeneration(StrEnum):
    """Generations with SEV, which need not have SEV-SNP."""

    NAPLES = "naples"
    ROME = "rome"
    MILAN = "milan"
    GENOA = "genoa"
    TURIN = "turin"


# Component -> byte in the TCB version.
_BEFORE_TURIN = {"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7}
_FROM_TURIN = {"fmc": 0, "boot_loader": 1, "tee": 2, "snp": 3, "microcode": 7}
LAYOUTS = {
    Generation.MILAN: _BEFORE_TURIN,
    Generation.GENOA: _BEFORE_TURIN,
    Generation.TURIN: _FROM_TURIN,
}


@dataclass(frozen=True, slots=True)
class Tcb:
    """Security patch levels, 0 to 255 each. `fmc` is None where a generation has none."""

    boot_loader: int = 0
    tee: int = 0
    snp: int = 0
    microcode: int = 0
    fmc: int | None = None

    def components(self) -> dict[str, int]:
        """The levels that this generation has, by name."""
        levels = {
            "boot_loader": self.boot_loader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
        }
        return levels if self.fmc is None else {"fmc": self.fmc, **levels}

    def below(self, other: Tcb) -> list[str]:
        """The components that are lower here than there."""
        theirs = other.components()
        return [name for name, level in self.components().items() if level < theirs.get(name, 0)]

    def __str__(self) -> str:
        return " ".join(f"{name}={level}" for name, level in self.components().items())


def decode_tcb(raw: bytes, generation: Generation) -> Tcb:
    """The levels in eight bytes of a report."""
    if len(raw) != TCB_BYTES:
        raise UnusableInput("a TCB version has 8 bytes", remedy="Give the report as the firmware wrote it")
    layout = LAYOUTS[generation]
    return Tcb(**{name: raw[at] for name, at in layout.items()})


def encode_tcb(tcb: Tcb, generation: Generation) -> bytes:
    """The eight bytes of a report."""
    raw = bytearray(TCB_BYTES)
    levels = tcb.components()
    for name, at in LAYOUTS[generation].items():
        raw[at] = levels.get(name, 0)
    return bytes(raw)


def generation_of_cpu(family: int, model: int) -> Generation | None:
    """The generation of a processor by CPUID family and model, as reports from version 3 on carry them."""
    if family == 0x19:
        if model <= 0x0F:
            return Generation.MILAN
        if 0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF:  # Genoa; Bergamo and Siena
            return Generation.GENOA
    if family == 0x1A and model <= 0x1F:
        return Generation.TURIN
    return None


def generation_of_product(product: str) -> Generation | None:
    """The generation that a certificate's product name means: Milan-B0, Genoa, Turin-B0."""
    name = product.split("-", maxsplit=1)[0].lower()
    return Generation(name) if name in set(Generation) else None


class Part(StrEnum):
    """Processors whose microcode counts on its own: a floor means something only within one part."""

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

# The first firmware, (major, minor, build), that checks memory for aliases and says so (AMD-SB-3015).
ALIAS_CHECK_SINCE = {
    Generation.MILAN: (1, 55, 22),
    Generation.GENOA: (1, 55, 38),
    Generation.TURIN: (1, 55, 0),
}


def part_of(generation: Generation, cpuid: tuple[int, int, int] | None) -> Part:
    """The name under which floors are kept: the part if the report tells it, else that of the generation."""
    part = None if cpuid is None else _PARTS.get(cpuid)
    return part or Part(generation.value)
