"""Security versions (TCB) of the firmware of each generation.

SNP ABI, table "TCB_VERSION": on Turin the eight bytes have another layout than before. An unknown generation is
refused, since the wrong layout would compare the wrong numbers.
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
    """Generations with SEV, with or without SEV-SNP."""

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
    """Security patch levels, 0 to 255 each. `fmc` is None for a generation without FMC."""

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
        """The components that are lower in this TCB than in the other."""
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
    """The generation of a processor by CPUID family and model, which reports contain from version 3 on."""
    if family == 0x19:
        if model <= 0x0F:
            return Generation.MILAN
        if 0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF:  # Genoa; Bergamo and Siena
            return Generation.GENOA
    if family == 0x1A and model <= 0x1F:
        return Generation.TURIN
    return None


def generation_of_product(product: str) -> Generation | None:
    """The generation of a certificate's product name, such as Milan-B0, Genoa, Turin-B0."""
    name = product.split("-", maxsplit=1)[0].lower()
    return Generation(name) if name in set(Generation) else None
