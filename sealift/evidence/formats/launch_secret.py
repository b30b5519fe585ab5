"""The launch secret of legacy SEV: its packet (SEV API, section 6.6) and the table inside (OVMF's layout).

Header, 52 bytes: flags u32, iv 16, MAC 32. Payload: the encrypted table, a multiple of 16 bytes.
Table: GUID 1e74f542…, u32 length of the whole; then GUID, u32 length with its own head, data; zeros to 16.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import sized

if TYPE_CHECKING:
    from collections.abc import Mapping


TABLE_GUID = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
DISK_KEY_GUID = UUID("736869e5-84f0-4973-92ec-06879ce3da0b")
HEADER_BYTES = 52
PAYLOAD_LIMIT = 16 * 1024  # SEV API, LAUNCH_SECRET: TRANS_LENGTH and GUEST_LENGTH are at most 16 KiB
FLAG_COMPRESSED = 1
_HEADER = struct.Struct("<I16s32s")
_ENTRY = struct.Struct("<16sI")


@dataclass(frozen=True, slots=True)
class SecretPacket:
    """The input of LAUNCH_SECRET: header fields and the ciphertext."""

    flags: int
    iv: bytes
    mac: bytes
    payload: bytes = field(repr=False)

    def header(self) -> bytes:
        """The 52 bytes of the header."""
        return _HEADER.pack(self.flags, self.iv, self.mac)


def pack_secret_table(entries: Mapping[UUID, bytes]) -> bytes:
    """The table of secrets for the guest's firmware, padded with zeros to a multiple of 16 bytes."""
    body = b"".join(
        _ENTRY.pack(name.bytes_le, _ENTRY.size + len(value)) + value for name, value in entries.items()
    )
    table = _ENTRY.pack(TABLE_GUID.bytes_le, _ENTRY.size + len(body)) + body
    return table + bytes(-len(table) % 16)


def parse_secret_table(data: bytes) -> dict[UUID, bytes]:
    """The entries of a table. Padding must be zeros; it may have any length, since tools differ."""
    if not _ENTRY.size <= len(data) <= PAYLOAD_LIMIT:
        raise UnusableInput(
            f"a secret table has {_ENTRY.size} bytes to 16 KiB, and this has {len(data)}",
            remedy="Package the secret again",
        )
    guid, total = _ENTRY.unpack_from(data)
    if guid != TABLE_GUID.bytes_le or not _ENTRY.size <= total <= len(data) or any(data[total:]):
        raise UnusableInput("this is not a secret table", remedy="Decrypt it with the keys of its own launch")
    entries: dict[UUID, bytes] = {}
    at = _ENTRY.size
    while at < total:
        if total - at < _ENTRY.size:
            raise UnusableInput("a secret table ends inside an entry", remedy="Package the secret again")
        name, length = _ENTRY.unpack_from(data, at)
        key = UUID(bytes_le=name)
        if not _ENTRY.size <= length <= total - at or key in entries:
            raise UnusableInput(
                "a secret table has an entry that is too long or duplicate", remedy="Package it again"
            )
        entries[key] = bytes(data[at + _ENTRY.size : at + length])
        at += length
    return entries


def parse_secret_packet(header: bytes, payload: bytes) -> SecretPacket:
    """Read header (52 bytes) and payload (a multiple of 16, at most 16 KiB). Compression is refused."""
    sized(header, HEADER_BYTES, "the header of a launch secret")
    if not payload or len(payload) % 16 or len(payload) > PAYLOAD_LIMIT:
        raise UnusableInput(
            "the payload of a launch secret is a multiple of 16 bytes, at most 16 KiB",
            remedy="Give it unchanged, as it was packaged",
        )
    flags, iv, mac = _HEADER.unpack(header)
    if flags & FLAG_COMPRESSED:
        raise UnusableInput(
            "a compressed launch secret is refused",
            remedy="Package it uncompressed: its length would reveal something of its content",
        )
    if flags:
        raise UnusableInput("a launch secret with unknown flags", remedy="Package it with flags 0")
    return SecretPacket(flags, iv, mac, bytes(payload))
