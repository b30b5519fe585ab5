"""The expected launch digest, from firmware, kernel hashes and processors.

SEV and SEV-ES: SHA-256 over what was encrypted, in order (SEV API, section 6.5). SNP: a chain of SHA-384
over one PAGE_INFO per page (SNP ABI, section 8.17.2, table "Layout of the PAGE_INFO structure").
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats.firmware import FirmwareImage, Section, SectionKind
from sealift.evidence.formats.layout import PAGE_BYTES
from sealift.evidence.formats.vmsa import RESET_VECTOR, SNP_ACTIVE, Vmm, build_vmsa

if TYPE_CHECKING:
    from sealift.evidence.launch.kernel_hashes import KernelHashes

VCPU_LIMIT = 4096
DIGEST_BYTES = {"sev": 32, "seves": 32, "snp": 48}

_LD_BYTES = 48
_VMSA_ADDRESS = 0xFFFF_FFFF_F000  # the RMP holds 2^64-1 for a VMSA; the digest sees bits 51:12 of it
_PAGE_INFO = struct.Struct("<48s48sHBBBBBBQ")


class Mode(StrEnum):
    """The generations of AMD's memory encryption."""

    SEV = "sev"
    SEVES = "seves"
    SNP = "snp"


class PageType(IntEnum):
    """SNP ABI, table "Page types" of SNP_LAUNCH_UPDATE."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


@dataclass(frozen=True, slots=True)
class Processors:
    """The guest's virtual processors: their number, and their CPUID signature and features."""

    count: int = 1
    signature: int = 0
    features: int = SNP_ACTIVE
    vmm: Vmm = Vmm.QEMU
    legacy_vm_type: bool = False


class SnpDigest:
    """A launch digest to which pages are added."""

    def __init__(self, seed: bytes = bytes(_LD_BYTES)) -> None:
        self.value = seed

    def add(self, kind: PageType, address: int, contents: bytes = bytes(_LD_BYTES)) -> None:
        """Add one page; `contents` is the SHA-384 of its content, or zeros if its type measures no content."""
        info = _PAGE_INFO.pack(self.value, contents, _PAGE_INFO.size, kind, 0, 0, 0, 0, 0, address)
        self.value = hashlib.sha384(info).digest()

    def add_data(self, address: int, data: bytes) -> None:
        """Add normal pages with their content. The length is a multiple of 4096."""
        view = memoryview(data)
        for offset in range(0, len(view), PAGE_BYTES):
            contents = hashlib.sha384(view[offset : offset + PAGE_BYTES]).digest()
            self.add(PageType.NORMAL, address + offset, contents)

    def add_region(self, kind: PageType, section: Section) -> None:
        """Add pages without content."""
        for offset in range(0, section.size, PAGE_BYTES):
            self.add(kind, section.address + offset)


def vmsa_pages(mode: Mode, firmware: FirmwareImage, processors: Processors) -> list[bytes]:
    """The VMSA of each processor. The first starts at the reset vector, the others at the firmware's reset address."""
    if not 1 <= processors.count <= VCPU_LIMIT:
        raise UnusableInput(
            f"{processors.count} virtual processors", remedy=f"A guest has 1 to {VCPU_LIMIT} of them"
        )

    def page(start: int) -> bytes:
        return build_vmsa(
            start,
            signature=processors.signature,
            features=processors.features if mode is Mode.SNP else 0,
            vmm=processors.vmm,
            legacy_vm_type=processors.legacy_vm_type,
        )

    pages = [page(RESET_VECTOR)]
    if processors.count > 1:
        if not firmware.reset_address:
            raise UnusableInput(
                "the firmware has no start address for a second processor",
                remedy="Use one virtual processor, or an OVMF build for SEV-ES",
            )
        pages += [page(firmware.reset_address)] * (processors.count - 1)
    return pages


def legacy_digest(firmware: FirmwareImage, hashes: KernelHashes | None, vmsas: list[bytes]) -> bytes:
    """SHA-256 over firmware, kernel hashes and VMSAs (plain SEV has no VMSAs)."""
    digest = hashlib.sha256(firmware.image)
    if hashes is not None:
        if not firmware.takes_kernel_hashes:
            raise _unmeasured_kernel()
        digest.update(hashes.pack())
    for page in vmsas:
        digest.update(page)
    return digest.digest()


def snp_firmware_digest(firmware: FirmwareImage) -> bytes:
    """The digest after the firmware's own pages, which tools call "OVMF hash"."""
    if len(firmware.image) % PAGE_BYTES:
        raise UnusableInput("SNP firmware is a multiple of 4096 bytes", remedy="Use the image as built")
    digest = SnpDigest()
    digest.add_data(firmware.address, firmware.image)
    return digest.value


def snp_digest(
    firmware: FirmwareImage,
    hashes: KernelHashes | None,
    processors: Processors,
    *,
    firmware_digest: bytes | None = None,
) -> bytes:
    """The 48 bytes of the measurement in an SNP report."""
    digest = SnpDigest(firmware_digest or snp_firmware_digest(firmware))
    if hashes is not None and firmware.section(SectionKind.KERNEL_HASHES) is None:
        raise _unmeasured_kernel()
    late = [each for each in firmware.sections if each.kind is SectionKind.CPUID]
    for section in firmware.sections:
        # EC2 adds the CPUID page after everything else.
        if section.kind is not SectionKind.CPUID or processors.vmm is not Vmm.EC2:
            _add_section(digest, section, firmware, hashes, processors.vmm)
    if processors.vmm is Vmm.EC2:
        for section in late:
            digest.add(PageType.CPUID, section.address)
    for page in vmsa_pages(Mode.SNP, firmware, processors):
        digest.add(PageType.VMSA, _VMSA_ADDRESS, hashlib.sha384(page).digest())
    return digest.value


def launch_digest(
    mode: Mode, firmware: FirmwareImage, hashes: KernelHashes | None, processors: Processors
) -> bytes:
    """The digest of a launch: 32 bytes for sev and seves, 48 for snp."""
    if mode is Mode.SNP:
        return snp_digest(firmware, hashes, processors)
    vmsas = vmsa_pages(mode, firmware, processors) if mode is Mode.SEVES else []
    return legacy_digest(firmware, hashes, vmsas)


def _add_section(
    digest: SnpDigest, section: Section, firmware: FirmwareImage, hashes: KernelHashes | None, vmm: Vmm
) -> None:
    match section.kind:
        case SectionKind.SECURE_MEMORY:
            digest.add_region(PageType.UNMEASURED if vmm is Vmm.GCE else PageType.ZERO, section)
        case SectionKind.SECRETS:
            digest.add(PageType.SECRETS, section.address)
        case SectionKind.CPUID:
            digest.add(PageType.CPUID, section.address)
        case SectionKind.SVSM_CALLING_AREA:
            digest.add_region(PageType.ZERO, section)
        case SectionKind.KERNEL_HASHES:
            if hashes is None:
                digest.add_region(PageType.ZERO, section)
                return
            table = firmware.hash_table_address
            if (
                not table
                or section.size != PAGE_BYTES
                or table // PAGE_BYTES != section.address // PAGE_BYTES
            ):
                raise _unmeasured_kernel()
            digest.add_data(section.address, hashes.page(table))


def _unmeasured_kernel() -> UnusableInput:
    return UnusableInput(
        "this firmware would boot the kernel without measuring it",
        remedy="Use an OVMF build with kernel hashes (AmdSevX64), or leave the kernel out",
    )
