"""Periodic timerfds that expired during the freeze: put right in the images, since CRIU would restore them stopped.

The kernel starts such a timer again only when its expirations are read, and shows no time left until then. CRIU (4.2,
criu/timerfd.c) takes that for "not armed" and sets it so. With one nanosecond left instead, it expires again at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .criu import varint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGICS_BYTES, LENGTH_BYTES = 8, 4  # images/magic.h: before the entries; before each of them
FILE_TYPE, FILE_TIMERFD = 1, 12  # images/fdinfo.proto, file_entry
TIMERFD = 17
TICKS, VALUE_S, VALUE_NS, INTERVAL_S, INTERVAL_NS = 5, 7, 8, 9, 10  # images/timerfd.proto
MARK = bytes([FILE_TYPE << 3, TIMERFD])


def start_again(images: Path) -> int:
    """Change `files.img` in place, without a byte more or less. Returns how many timers there were."""
    path = images / "files.img"
    try:
        data = bytearray(path.read_bytes())
    except FileNotFoundError:
        return 0
    if MARK not in data:
        return 0
    places = list(_stopped(data))
    for place in places:
        data[place] = 1  # was a zero: both are one byte long
    if places:
        path.write_bytes(data)
    return len(places)


def _stopped(data: bytearray) -> Iterator[int]:
    """Where the nanoseconds of each expired periodic timer stand."""
    at = MAGICS_BYTES
    while at + LENGTH_BYTES <= len(data):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if not data.startswith(MARK, start):
            continue
        for number, value, position in _fields(data, start, at):
            if number != FILE_TIMERFD:
                continue
            found = {inner: (v, p) for inner, v, p in _fields(data, position, position + value)}
            left = found[VALUE_S][0] or found[VALUE_NS][0]
            if found[TICKS][0] and not left and (found[INTERVAL_S][0] or found[INTERVAL_NS][0]):
                yield found[VALUE_NS][1]


def _fields(data: bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, value and place of each field: a varint and where it stands, or the length and beginning of bytes."""
    while at < end:
        key, at = varint(data, at)
        place = at
        value, at = varint(data, at)
        if key & 7 == 2:
            place, at = at, at + value
        yield key >> 3, value, place
