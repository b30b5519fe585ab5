"""protobuf's wire format, as far as CRIU's images and containerd's shim need it: integers and bytes.

Source: protobuf.dev, "Encoding"; varints and length-delimited fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, BYTES = 0, 2
"""Wire types."""


class Place(NamedTuple):
    """Where a field's value stands. `value` is an integer itself; of bytes it is their number."""

    number: int
    kind: int
    value: int
    at: int


def places(data: bytes | bytearray, at: int = 0, end: int | None = None) -> Iterator[Place]:
    """The fields of the message from `at` to `end`, up to the first of another kind than the two."""
    end = len(data) if end is None else end
    while at < end:
        key, here = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind not in {VARINT, BYTES}:
            return
        value, at = varint(data, here)
        if kind == BYTES:
            here, at = at, at + value
        yield Place(number, kind, value, here)


def fields(data: bytes | bytearray) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number, and integer or bytes."""
    for number, kind, value, at in places(data):
        yield number, bytes(data[at : at + value]) if kind == BYTES else value


def varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """The integer that stands at a place, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def written(number: int, value: int | bytes) -> bytes:
    """One field, as it is sent."""
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
