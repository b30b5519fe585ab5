"""The table of certificates that a hypervisor gives to a guest with its report.

GHCB specification (AMD 56421), section 4.1.8.1: entries of GUID (big-endian), u32 offset, u32 length, ended
by a zero entry; then the certificates. The guest gets it from the ioctl SNP_GET_EXT_REPORT or from `auxblob`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from uuid import UUID

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE_LIMIT = 64 * 1024
ENTRY_LIMIT = 64

VCEK = UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK = UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
ARK = UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
CRL = UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")
NAMES = {VCEK: "VCEK", VLEK: "VLEK", ASK: "ASK", ARK: "ARK", CRL: "CRL"}

_ENTRY = struct.Struct("<16sII")


def parse_certificate_table(data: bytes) -> dict[UUID, bytes]:
    """The certificates by GUID, as stored. At most 64 KiB and 64 entries."""
    if len(data) > SIZE_LIMIT:
        raise UnusableInput(
            "the certificate table is larger than 64 KiB", remedy="Give it without the report"
        )
    found: dict[UUID, bytes] = {}
    for index in range(ENTRY_LIMIT):
        if (index + 1) * _ENTRY.size > len(data):
            break
        raw, offset, length = _ENTRY.unpack_from(data, index * _ENTRY.size)
        if not any(raw):
            return found
        name = UUID(bytes=raw)
        if name in found or offset > len(data) or length > len(data) - offset:
            raise UnusableInput(
                "the certificate table has a duplicate entry, or one that lies outside it",
                remedy="Read it from the guest again",
            )
        found[name] = bytes(data[offset : offset + length])
    raise UnusableInput("the certificate table has no end", remedy="Read it from the guest again")


def pack_certificate_table(certificates: Mapping[UUID, bytes]) -> bytes:
    """A table in whole pages, as KVM needs it."""
    at = _ENTRY.size * (len(certificates) + 1)
    head, body = b"", b""
    for name, content in certificates.items():
        head += _ENTRY.pack(name.bytes, at + len(body), len(content))
        body += content
    table = head + bytes(_ENTRY.size) + body
    return table + bytes(-len(table) % PAGE_BYTES)


def is_certificate_table(block: bytes) -> bool:
    """Whether these bytes begin with an entry that a table of certificates has."""
    known = {name.bytes for name in NAMES}
    return len(block) >= 48 and block[:16] in known
