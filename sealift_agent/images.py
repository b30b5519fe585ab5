"""What CRIU writes into an image directory: messages in a row, and of what a pagemap and the statistics say.

Numbers of fields are those of CRIU's images/*.proto, flags those of its headers.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from .protobuf import fields, places, varint
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD_BYTES, LENGTH_BYTES = 8, 4
"""Before all messages: two magic numbers of 32 bits (criu/include/magic.h). Before each: its length."""

PARENT, LAZY, PRESENT = 1, 2, 4
"""PE_PARENT: in an earlier round's images; PE_LAZY: may follow; PE_PRESENT: in these (criu/include/pagemap.h)."""


class Run(NamedTuple):
    """Pages in a row: the first one's address, how many, flags, and where the flags stand in the pagemap's file."""

    address: int
    pages: int
    flags: int
    flags_at: int


def spans(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Where each message of an image begins and ends."""
    at = HEAD_BYTES
    while at + LENGTH_BYTES <= len(data):
        begin = at + LENGTH_BYTES
        at = begin + int.from_bytes(data[at:begin], "little")
        yield begin, at


def messages(image: Path) -> Iterator[bytes]:
    """The messages of an image. None if it is not there."""
    try:
        data = image.read_bytes()
    except FileNotFoundError:
        return
    for begin, end in spans(data):
        yield data[begin:end]


def pagemaps(images: Path) -> Iterator[tuple[int, Path]]:
    """The pagemap of each process, by its number in the container. Those of shared memory have longer names."""
    for path in images.glob("pagemap-*.img"):
        name = path.stem.removeprefix("pagemap-")
        if name.isdigit():
            yield int(name), path


def lazy_ranges(images: Path) -> Iterator[tuple[int, int, int]]:
    """What a restore leaves out, to follow: process, address, pages."""
    for image, path in pagemaps(images):
        for run in runs(path.read_bytes()):
            if run.flags & LAZY:
                yield image, run.address, run.pages


_VARINT = rb"([\x80-\xff]*[\x00-\x7f])"
_ENTRY = re.compile(rb"\x08%b\x10%b(?:\x18[\x00\x01])?\x20([\x00-\x7f])(?:\x28%b)?" % ((_VARINT,) * 3))
"""images/pagemap.proto, pagemap_entry: vaddr, compat_nr_pages, in_parent, flags, nr_pages."""


def runs(pagemap: bytes | bytearray) -> Iterator[Run]:
    """What a pagemap lists, in the order of addresses. AgentError for an entry that is none.

    A writer all over its memory has tens of thousands of them, which are read while nothing runs: so they are not taken
    apart field by field.
    """
    for begin, end in islice(spans(pagemap), 1, None):
        found = _ENTRY.fullmatch(pagemap, begin, end)
        if found is None:
            raise AgentError(f"CRIU's pagemap has an entry that is none, at byte {begin}", "restore")
        address, fewer, flags, pages = found.groups()
        yield Run(_integer(address), _integer(pages or fewer), flags[0], found.start(3))


def _integer(encoded: bytes) -> int:
    """A varint. Up to eight of its seven bits are put together at once: in pairs, in fours, in all."""
    if len(encoded) == 1:
        return encoded[0]
    if len(encoded) > 8:
        return varint(encoded, 0)[0]
    bits = int.from_bytes(encoded, "little") & 0x7F7F7F7F7F7F7F7F
    bits = bits & 0x007F007F007F007F | (bits & 0x7F007F007F007F00) >> 1
    bits = bits & 0x00003FFF00003FFF | (bits & 0x3FFF00003FFF0000) >> 2
    return bits & 0x0FFFFFFF | (bits & 0x0FFFFFFF00000000) >> 4


def pages_file(pagemap: bytes | bytearray) -> int:
    """The number of the file that has the pages of a pagemap (pagemap_head)."""
    begin, end = next(spans(pagemap))
    return next(place.value for place in places(pagemap, begin, end) if place.number == 1)


def dump_stats(images: Path) -> dict[str, int]:
    """What CRIU says of a dump (images/stats.proto): times in microseconds, pages as counts."""
    names = {1: "freezing_us", 2: "frozen_us", 3: "memdump_us", 4: "memwrite_us", 5: "pages_scanned"}
    names |= {6: "pages_skipped", 7: "pages_written"}
    return _statistics(images / "stats-dump", 1, names)


def restore_stats(images: Path) -> dict[str, int]:
    """What CRIU says of a restore."""
    return _statistics(images / "stats-restore", 2, {3: "forking_us", 4: "restore_us", 5: "pages_restored"})


def _statistics(path: Path, entry: int, names: dict[int, str]) -> dict[str, int]:
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    for begin, end in spans(data):
        for number, value in fields(data[begin:end]):
            if number == entry and isinstance(value, bytes):
                return {names[n]: v for n, v in fields(value) if n in names and isinstance(v, int)}
    return {}
