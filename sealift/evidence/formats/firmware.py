"""A guest's firmware image, and the table at its end (OVMF's reset vector).

The table lies 32 bytes before the end and grows downwards: data, u16 length, GUID. Three entries are used:
the address of the kernel hashes, the start address of an application processor, and the place of the SNP metadata.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import PAGE_BYTES

SIZE_LIMIT = 64 * 1024 * 1024
TOP = 1 << 32  # firmware ends at 4 GiB

_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_HASH_TABLE = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
_RESET_BLOCK = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le

_TABLE_GAP = 32
_ENTRY = struct.Struct("<H16s")
_METADATA_HEADER = struct.Struct("<4sIII")
_SECTION = struct.Struct("<III")
_SECTION_LIMIT = 64
# Pages are hashed one by one. Without a limit, an image could demand a million of them.
_SECTION_BYTES_LIMIT = 16 * 1024 * 1024

_REMEDY = "Use the OVMF build that the machine boots, whole and unpacked"


class SectionKind(IntEnum):
    """The purpose of a metadata section (OvmfSevMetadata.asm)."""

    SECURE_MEMORY = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CALLING_AREA = 4
    KERNEL_HASHES = 0x10


@dataclass(frozen=True, slots=True)
class Section:
    """Guest-physical pages that the hypervisor must add at launch. Address and size in bytes."""

    address: int
    size: int
    kind: SectionKind


@dataclass(frozen=True, slots=True)
class FirmwareImage:
    """A firmware image and its table. Addresses are guest-physical; None if the table does not have them."""

    image: bytes = field(repr=False)
    hash_table_address: int | None
    reset_address: int | None
    sections: tuple[Section, ...]

    @property
    def address(self) -> int:
        """The guest-physical address of its first byte."""
        return TOP - len(self.image)

    @property
    def takes_kernel_hashes(self) -> bool:
        """Whether it checks kernel, initrd and command line against measured hashes."""
        return bool(self.hash_table_address)

    def section(self, kind: SectionKind) -> Section | None:
        """The first section of a kind."""
        return next((each for each in self.sections if each.kind == kind), None)


def parse_firmware(image: bytes) -> FirmwareImage:
    """Read the table of a firmware image. An image without a table has no entries."""
    if not _TABLE_GAP + _ENTRY.size <= len(image) <= SIZE_LIMIT:
        raise UnusableInput(f"a firmware image of {len(image)} bytes", remedy=_REMEDY)
    table = _read_table(image)
    return FirmwareImage(
        image=image,
        hash_table_address=_address(table, _HASH_TABLE),
        reset_address=_address(table, _RESET_BLOCK),
        sections=_read_sections(image, table.get(_METADATA)),
    )


def _read_table(image: bytes) -> dict[bytes, bytes]:
    end = len(image) - _TABLE_GAP - _ENTRY.size
    length, guid = _ENTRY.unpack_from(image, end)
    table: dict[bytes, bytes] = {}
    if guid != _FOOTER:
        return table
    start = end + _ENTRY.size - length
    if start < 0 or length < _ENTRY.size:
        raise UnusableInput("the firmware's table is longer than the firmware", remedy=_REMEDY)
    at = end
    while at - start >= _ENTRY.size:
        length, guid = _ENTRY.unpack_from(image, at - _ENTRY.size)
        if not _ENTRY.size <= length <= at - start:
            raise UnusableInput("the firmware's table has an entry of impossible length", remedy=_REMEDY)
        table[guid] = image[at - length : at - _ENTRY.size]
        at -= length
    return table


def _address(table: dict[bytes, bytes], guid: bytes) -> int | None:
    entry = table.get(guid)
    if entry is None:
        return None
    if len(entry) < 4:
        raise UnusableInput("the firmware's table has an entry that is too short", remedy=_REMEDY)
    return int.from_bytes(entry[:4], "little")


def _read_sections(image: bytes, entry: bytes | None) -> tuple[Section, ...]:
    if entry is None:
        return ()
    if len(entry) < 4:
        raise UnusableInput("the firmware's table has an entry that is too short", remedy=_REMEDY)
    start = len(image) - int.from_bytes(entry[:4], "little")
    if not 0 <= start <= len(image) - _METADATA_HEADER.size:
        raise UnusableInput("the firmware's SNP metadata lies outside the image", remedy=_REMEDY)
    magic, _, version, count = _METADATA_HEADER.unpack_from(image, start)
    start += _METADATA_HEADER.size
    fits = count <= _SECTION_LIMIT and start + count * _SECTION.size <= len(image)
    if magic != b"ASEV" or version != 1 or not fits:
        raise UnusableInput(
            "the firmware's SNP metadata is damaged, or has an unknown version", remedy=_REMEDY
        )
    sections = tuple(_read_section(image, start + index * _SECTION.size) for index in range(count))
    if sum(each.size for each in sections) > _SECTION_BYTES_LIMIT:
        raise UnusableInput("the firmware's SNP metadata demands too many pages", remedy=_REMEDY)
    return sections


def _read_section(image: bytes, at: int) -> Section:
    address, size, kind = _SECTION.unpack_from(image, at)
    if address % PAGE_BYTES or size % PAGE_BYTES or kind not in set(SectionKind):
        raise UnusableInput("the firmware's SNP metadata has an impossible section", remedy=_REMEDY)
    return Section(address, size, SectionKind(kind))
