"""Messages as CRIU writes them: protobuf, as far as integers and bytes go.

Apart from the agents' own, which is judged by it.
"""

from __future__ import annotations


def varint(value: int) -> bytes:
    """An integer, seven bits a byte, the lowest first."""
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    """One field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value
