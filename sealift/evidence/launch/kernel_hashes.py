"""The table of kernel hashes. QEMU writes it into the guest and measures it when it boots a kernel directly.

GUID 9438d606…, u16 length 168; entries of 50 bytes (GUID, u16 length, SHA-256) for command line, initrd
and kernel; zeros to 176 bytes. The firmware refuses a kernel with another hash than the measured one.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from uuid import UUID

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import PAGE_BYTES, sized

TABLE_BYTES = 176
NO_INITRD = hashlib.sha256(b"").digest()

_TABLE = UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le
_COMMAND_LINE = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a").bytes_le
_INITRD = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d").bytes_le
_KERNEL = UUID("4de79437-abd2-427f-b835-d5b172d2045b").bytes_le

_HEAD = struct.Struct("<16sH")
_ENTRY = struct.Struct("<16sH32s")


@dataclass(frozen=True, slots=True)
class KernelHashes:
    """SHA-256 of kernel, initrd (of zero bytes, if there is none) and command line with its NUL."""

    kernel: bytes
    initrd: bytes
    command_line: bytes

    def pack(self) -> bytes:
        """The 176 bytes that are measured with SEV and SEV-ES."""
        entries = b"".join(
            _ENTRY.pack(guid, _ENTRY.size, sized(digest, 32, "a SHA-256"))
            for guid, digest in (
                (_COMMAND_LINE, self.command_line),
                (_INITRD, self.initrd),
                (_KERNEL, self.kernel),
            )
        )
        return (_HEAD.pack(_TABLE, _HEAD.size + len(entries)) + entries).ljust(TABLE_BYTES, b"\0")

    def page(self, address: int) -> bytes:
        """The whole page that SNP measures: the table at its address, and zeros before and after it."""
        offset = address % PAGE_BYTES
        if offset + TABLE_BYTES > PAGE_BYTES:
            raise UnusableInput(
                "the firmware's place for the kernel hashes crosses the end of a page",
                remedy="Use another OVMF build",
            )
        return (bytes(offset) + self.pack()).ljust(PAGE_BYTES, b"\0")


def hash_command_line(text: str) -> bytes:
    """SHA-256 of the command line as QEMU stores it, including its NUL."""
    return hashlib.sha256(text.encode() + b"\0").digest()


def hash_boot(kernel: bytes, initrd: bytes | None, command_line: str | None) -> KernelHashes:
    """The hashes of a direct boot, from contents in memory. Hash large files in pieces instead."""
    return KernelHashes(
        kernel=hashlib.sha256(kernel).digest(),
        initrd=hashlib.sha256(initrd or b"").digest(),
        command_line=hash_command_line(command_line or ""),
    )
