"""The measured parts of a launch. The owner's expected digest and the emulator's digest come from the same code.

A VM's image is measured as by QEMU and the firmware of AMD's processor (`sealift.evidence.launch`). A host of the
`netns` lab has no firmware: a description of its tree is measured instead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - read at run time by `wire`

from sealift.errors import UnusableInput
from sealift.evidence.formats.firmware import SIZE_LIMIT, FirmwareImage, parse_firmware
from sealift.evidence.formats.layout import PAGE_BYTES
from sealift.evidence.formats.vmsa import SNP_ACTIVE, model_signature
from sealift.evidence.launch.digest import Mode, Processors, SnpDigest, launch_digest
from sealift.evidence.launch.kernel_hashes import NO_INITRD, KernelHashes, hash_command_line
from sealift.files import hash_file, read_bounded

TREE_LIMIT = 64 * 1024


@dataclass(frozen=True)
class MeasuredImage:
    """QEMU's files, and the virtual processors.

    `cpu` is QEMU's model name; `features` is SEV_FEATURES, measured with SNP only. `kernel_hashes` is QEMU's
    option of that name: without it the kernel is booted and not measured.
    """

    firmware: Path
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    kernel_hashes: bool = True
    vcpus: int = 1
    cpu: str = "EPYC-Milan"
    features: int = SNP_ACTIVE
    legacy_vm_type: bool = False

    def hashes(self) -> KernelHashes | None:
        """Hashes of kernel, initrd and command line; None if they are not measured."""
        if self.kernel is None or not self.kernel_hashes:
            return None
        return KernelHashes(
            kernel=hash_file(self.kernel),
            initrd=hash_file(self.initrd) if self.initrd else NO_INITRD,
            command_line=hash_command_line(self.append),
        )

    def parsed_firmware(self) -> FirmwareImage:
        """The firmware and its table."""
        return parse_firmware(read_bounded(self.firmware, SIZE_LIMIT))

    def digest(self, mode: Mode) -> bytes:
        """The launch digest: 32 bytes with SEV and SEV-ES, 48 with SNP."""
        processors = Processors(
            self.vcpus, model_signature(self.cpu), self.features, legacy_vm_type=self.legacy_vm_type
        )
        return launch_digest(mode, self.parsed_firmware(), self.hashes(), processors)


@dataclass(frozen=True)
class MeasuredTree:
    """A description of a namespaced host (hashes of its recipe and files), 1 byte to 64 KiB."""

    content: bytes

    def digest(self, mode: Mode) -> bytes:
        """The digest of the description as the first pages of a guest, at address 0, padded with zeros."""
        if not 0 < len(self.content) <= TREE_LIMIT:
            raise UnusableInput(
                "a tree is described in 1 byte to 64 KiB", remedy="Describe it by hashes, not by its files"
            )
        pages = self.content + bytes(-len(self.content) % PAGE_BYTES)
        if mode is not Mode.SNP:
            return hashlib.sha256(pages).digest()
        digest = SnpDigest()
        digest.add_data(0, pages)
        return digest.value


Measured = MeasuredImage | MeasuredTree
