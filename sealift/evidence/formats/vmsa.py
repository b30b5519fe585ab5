"""The start registers of a virtual processor: the VMSA page that SEV-ES and SNP measure.

APM 2, appendix B, table B-4 (layout) and section 14.1.3 (state after INIT), with the changes of KVM and of the three
known hypervisors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import PAGE_BYTES
from sealift.words import not_known

RESET_VECTOR = 0xFFFF_FFF0

SNP_ACTIVE = 0x1
DEBUG_SWAP = 0x20


class Vmm(StrEnum):
    """The hypervisor that sets up the registers."""

    QEMU = "qemu"
    EC2 = "ec2"
    GCE = "gce"


@dataclass(frozen=True, slots=True)
class _Setup:
    """The values that differ between hypervisors."""

    boot_cs: int
    other_cs: int
    ss: int
    tr: int
    pat: int
    mxcsr: int
    x87_control: int
    rdx: int | None  # None: the processor's signature


_SETUPS = {
    Vmm.QEMU: _Setup(0x9B, 0x9B, 0x93, 0x8B, 0x0007_0406_0007_0406, 0x1F80, 0x37F, None),
    Vmm.EC2: _Setup(0x9A, 0x9B, 0x92, 0x83, 0x0007_0406_0007_0406, 0, 0, 0x600),
    Vmm.GCE: _Setup(0x9B, 0x9B, 0x93, 0x8B, 0x0007_0106, 0, 0, 0x600),
}

# Offsets of table B-4.
_SEGMENTS = {"es": 0x00, "cs": 0x10, "ss": 0x20, "ds": 0x30, "fs": 0x40, "gs": 0x50}
_GDTR, _LDTR, _IDTR, _TR = 0x60, 0x70, 0x80, 0x90
_QWORDS_AFTER_INIT = {
    0xD0: 0x1000,  # EFER: KVM sets SVME
    0x148: 0x40,  # CR4: KVM sets MCE
    0x158: 0x10,  # CR0
    0x160: 0x400,  # DR7
    0x168: 0xFFFF_0FF0,  # DR6
    0x170: 0x2,  # RFLAGS
    0x3E8: 0x1,  # XCR0
}
_RIP, _PAT, _RDX, _FEATURES, _MXCSR, _X87_CONTROL = 0x178, 0x268, 0x310, 0x3B0, 0x408, 0x410

# Family, model, stepping of QEMU's processor models (target/i386/cpu.c, builtin_x86_defs).
CPU_MODELS: dict[str, tuple[int, int, int]] = {
    **dict.fromkeys(("EPYC", "EPYC-v1", "EPYC-v2", "EPYC-v3", "EPYC-v4", "EPYC-IBPB"), (23, 1, 2)),
    "EPYC-v5": (23, 1, 2),
    **dict.fromkeys(
        ("EPYC-Rome", "EPYC-Rome-v1", "EPYC-Rome-v2", "EPYC-Rome-v3", "EPYC-Rome-v4", "EPYC-Rome-v5"),
        (23, 49, 0),
    ),
    **dict.fromkeys(("EPYC-Milan", "EPYC-Milan-v1", "EPYC-Milan-v2", "EPYC-Milan-v3"), (25, 1, 1)),
    **dict.fromkeys(("EPYC-Genoa", "EPYC-Genoa-v1", "EPYC-Genoa-v2"), (25, 17, 0)),
    **dict.fromkeys(("EPYC-Turin", "EPYC-Turin-v1"), (26, 0, 0)),
}


def cpu_signature(family: int, model: int, stepping: int) -> int:
    """EAX of CPUID leaf 1, from the displayed family, model and stepping (AMD 25481, Fn0000_0001)."""
    if not (0 <= family <= 0x10E and 0 <= model <= 0xFF and 0 <= stepping <= 0xF):
        raise UnusableInput("no processor has this family, model and stepping", remedy="See /proc/cpuinfo")
    base, extended = (0xF, family - 0xF) if family > 0xF else (family, 0)
    return extended << 20 | (model >> 4) << 16 | base << 8 | (model & 0xF) << 4 | stepping


def model_signature(name: str) -> int:
    """The signature of one of QEMU's processor models, by its name."""
    known = {key.lower(): value for key, value in CPU_MODELS.items()}.get(name.lower())
    if known is None:
        raise UnusableInput(
            f"the processor type is wrong: {not_known(name, CPU_MODELS)}",
            remedy=f"Use one of {', '.join(sorted(CPU_MODELS))}, or give the signature",
        )
    return cpu_signature(*known)


def build_vmsa(
    start: int,
    *,
    signature: int = 0,
    features: int = 0,
    vmm: Vmm = Vmm.QEMU,
    legacy_vm_type: bool = False,
) -> bytes:
    """The 4096-byte page of a processor that starts at `start`.

    `features` is SEV_FEATURES (0 with SEV-ES). `legacy_vm_type` is QEMU's option of that name: KVM then
    does not copy the x87 and SSE control words; kernels before 6.10 never did.
    """
    setup = _SETUPS[vmm]
    page = bytearray(PAGE_BYTES)

    def segment(at: int, attributes: int, selector: int = 0, base: int = 0) -> None:
        struct.pack_into("<HHIQ", page, at, selector, attributes, 0xFFFF, base)

    for name in ("es", "ds", "fs", "gs"):
        segment(_SEGMENTS[name], 0x93)
    code = setup.boot_cs if start == RESET_VECTOR else setup.other_cs
    segment(_SEGMENTS["cs"], code, 0xF000, start & 0xFFFF_0000)
    segment(_SEGMENTS["ss"], setup.ss)
    segment(_GDTR, 0)
    segment(_IDTR, 0)
    segment(_LDTR, 0x82)
    segment(_TR, setup.tr)
    for at, value in _QWORDS_AFTER_INIT.items():
        struct.pack_into("<Q", page, at, value)
    struct.pack_into("<Q", page, _RIP, start & 0xFFFF)
    struct.pack_into("<Q", page, _PAT, setup.pat)
    struct.pack_into("<Q", page, _RDX, signature if setup.rdx is None else setup.rdx)
    struct.pack_into("<Q", page, _FEATURES, features)
    if not legacy_vm_type:
        struct.pack_into("<I", page, _MXCSR, setup.mxcsr)
        struct.pack_into("<H", page, _X87_CONTROL, setup.x87_control)
    return bytes(page)
