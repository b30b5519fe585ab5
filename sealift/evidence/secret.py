"""The launch secret of legacy SEV: its packet (SEV API, section 6.6) and the table inside (OVMF's layout).

Header, 52 bytes: flags u32, iv 16, HMAC(TIK, 01 ‖ flags ‖ iv ‖ LE32 length ‖ LE32 length ‖ ciphertext ‖
measurement's MAC). Payload: AES-128-CTR under TEK.
Table: GUID 1e74f542…, u32 length of the whole; then GUID, u32 length with its own head, data; zeros to 16.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from sealift.errors import EvidenceRejected, UnusableInput
from sealift.evidence.layout import sized
from sealift.evidence.session import aes_ctr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.evidence.session import TransportKeys

TABLE_GUID = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
DISK_KEY_GUID = UUID("736869e5-84f0-4973-92ec-06879ce3da0b")

HEADER_BYTES = 52
PAYLOAD_LIMIT = 16 * 1024  # SEV API, LAUNCH_SECRET: TRANS_LENGTH and GUEST_LENGTH are at most 16 KiB
FLAG_COMPRESSED = 1

_HEADER = struct.Struct("<I16s32s")
_ENTRY = struct.Struct("<16sI")
_CONTEXT = 1


@dataclass(frozen=True, slots=True)
class SecretPacket:
    """What LAUNCH_SECRET takes: header fields and the ciphertext."""

    flags: int
    iv: bytes
    mac: bytes
    payload: bytes = field(repr=False)

    def header(self) -> bytes:
        """The 52 bytes of the header."""
        return _HEADER.pack(self.flags, self.iv, self.mac)


def pack_secret_table(entries: Mapping[UUID, bytes]) -> bytes:
    """The table that the guest's firmware looks entries up in, padded with zeros to 16 bytes."""
    body = b"".join(
        _ENTRY.pack(name.bytes_le, _ENTRY.size + len(value)) + value for name, value in entries.items()
    )
    table = _ENTRY.pack(TABLE_GUID.bytes_le, _ENTRY.size + len(body)) + body
    return table + bytes(-len(table) % 16)


def parse_secret_table(data: bytes) -> dict[UUID, bytes]:
    """The entries of a table. Padding beyond its length must be zeros, of any length (peers differ)."""
    if not _ENTRY.size <= len(data) <= PAYLOAD_LIMIT:
        raise UnusableInput(
            f"a secret table has {_ENTRY.size} bytes to 16 KiB, and this has {len(data)}",
            remedy="Package the secret again",
        )
    guid, total = _ENTRY.unpack_from(data)
    if guid != TABLE_GUID.bytes_le or not _ENTRY.size <= total <= len(data) or any(data[total:]):
        raise UnusableInput(
            "this is no secret table", remedy="Decrypt it with the keys of the launch it was made for"
        )
    entries: dict[UUID, bytes] = {}
    at = _ENTRY.size
    while at < total:
        if total - at < _ENTRY.size:
            raise UnusableInput("a secret table ends inside an entry", remedy="Package the secret again")
        name, length = _ENTRY.unpack_from(data, at)
        key = UUID(bytes_le=name)
        if not _ENTRY.size <= length <= total - at or key in entries:
            raise UnusableInput(
                "a secret table has an entry that is too long or comes twice", remedy="Package it again"
            )
        entries[key] = bytes(data[at + _ENTRY.size : at + length])
        at += length
    return entries


def package_secret(
    keys: TransportKeys, measurement_mac: bytes, table: bytes, *, iv: bytes | None = None
) -> SecretPacket:
    """Encrypt a table for the guest whose verified measurement has this MAC (32 bytes).

    `iv` is fresh unless given, and never twice under one TEK.
    """
    if not table or len(table) % 16 or len(table) > PAYLOAD_LIMIT:
        raise UnusableInput(
            "a launch secret is a multiple of 16 bytes, at most 16 KiB",
            remedy="Send fewer or shorter secrets",
        )
    vector = sized(iv, 16, "an initialisation vector") if iv is not None else secrets.token_bytes(16)
    ciphertext = aes_ctr(keys.tek, vector, table)
    return SecretPacket(0, vector, _mac(keys.tik, 0, vector, ciphertext, measurement_mac), ciphertext)


def parse_secret_packet(header: bytes, payload: bytes) -> SecretPacket:
    """Read header (52 bytes) and payload (a multiple of 16, at most 16 KiB). Compression is refused."""
    sized(header, HEADER_BYTES, "the header of a launch secret")
    if not payload or len(payload) % 16 or len(payload) > PAYLOAD_LIMIT:
        raise UnusableInput(
            "the payload of a launch secret is a multiple of 16 bytes, at most 16 KiB",
            remedy="Give it as it was packaged",
        )
    flags, iv, mac = _HEADER.unpack(header)
    if flags & FLAG_COMPRESSED:
        raise UnusableInput(
            "a compressed launch secret is refused",
            remedy="Package it uncompressed: its length would tell of its content",
        )
    if flags:
        raise UnusableInput("a launch secret with unknown flags", remedy="Package it with flags 0")
    return SecretPacket(flags, iv, mac, bytes(payload))


def unpack_secret(keys: TransportKeys, measurement_mac: bytes, packet: SecretPacket) -> bytes:
    """The platform's side: check the MAC over what was received, then decrypt. Raises EvidenceRejected."""
    expected = _mac(keys.tik, packet.flags, packet.iv, packet.payload, measurement_mac)
    if not hmac.compare_digest(expected, packet.mac):
        raise EvidenceRejected(
            "the launch secret was not made for this launch, or was changed on its way",
            reasons=("secret: MAC",),
            remedy="Package it with the keys and the measurement of this launch",
        )
    return aes_ctr(keys.tek, packet.iv, packet.payload)


def _mac(tik: bytes, flags: int, iv: bytes, ciphertext: bytes, measurement_mac: bytes) -> bytes:
    sized(measurement_mac, 32, "a measurement's MAC")
    lengths = struct.pack("<II", len(ciphertext), len(ciphertext))
    head = struct.pack("<BI", _CONTEXT, flags) + iv + lengths
    return hmac.digest(tik, head + ciphertext + measurement_mac, "sha256")
