"""Fixed layouts: pages, sizes that must be exact, GUIDs and hexadecimal text."""

from __future__ import annotations

import binascii
import re
from uuid import UUID

from sealift.errors import UnusableInput

PAGE_BYTES = 4096
"""Bytes of a page on x86. A launch measures whole pages, and hypervisor and guest share whole pages."""

_HEX = re.compile(rb"[0-9a-fA-F\s]+\Z")


def sized(data: bytes, size: int, what: str) -> bytes:
    """The bytes, if there are exactly `size` of them."""
    if len(data) != size:
        raise UnusableInput(
            f"{what} has {size} bytes, and this has {len(data)}",
            remedy="Give it as the firmware wrote it, neither cut nor padded",
        )
    return bytes(data)


def guid(text: str) -> UUID:
    """The GUID in a text."""
    try:
        return UUID(text)
    except ValueError as error:
        raise UnusableInput(
            "this is not a GUID", remedy="Write it like 736869e5-84f0-4973-92ec-06879ce3da0b"
        ) from error


def hex_bytes(text: str, what: str, size: int | None = None) -> bytes:
    """Bytes from hexadecimal text, with an optional 0x and blanks; `size` demands a length in bytes."""
    raw = text.strip().removeprefix("0x").encode("ascii", "replace")
    if raw and not _HEX.match(raw):
        raise UnusableInput(f"{what} is not hexadecimal", remedy="Use the digits 0-9 and a-f only")
    try:
        data = binascii.unhexlify(b"".join(raw.split()))
    except (binascii.Error, ValueError) as error:
        raise UnusableInput(
            f"{what} is not hexadecimal", remedy="Use an even number of the digits 0-9 and a-f"
        ) from error
    return data if size is None else sized(data, size, what)
