"""Periodic timerfds that expired during the freeze: put right in the images, since CRIU would restore them stopped.

The kernel starts such a timer again only when its expirations are read, and shows no time left until then. CRIU (4.2,
criu/timerfd.c) takes that for "not armed" and sets it so. With one nanosecond left instead, it expires again at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .images import spans
from .protobuf import places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    for begin, end in spans(data):
        if not data.startswith(MARK, begin):
            continue
        for number, _, size, at in places(data, begin, end):
            if number != FILE_TIMERFD:
                continue
            found = {place.number: place for place in places(data, at, at + size)}
            left = found[VALUE_S].value or found[VALUE_NS].value
            if found[TICKS].value and not left and (found[INTERVAL_S].value or found[INTERVAL_NS].value):
                yield found[VALUE_NS].at
