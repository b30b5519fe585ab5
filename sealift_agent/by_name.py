"""Open files in CRIU's images that become such as CRIU opens by their name, in place of what it would make of them."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Union

from .images import HEAD_BYTES, LENGTH_BYTES, spans
from .protobuf import fields, places, written

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

Entry = dict[int, Union[int, bytes]]

FILES, DESCRIPTORS, TERMINALS = "files.img", "fdinfo-*.img", "tty-info.img"
TYPE, ID, REGULAR = 1, 2, 3  # images/fdinfo.proto, file_entry
PIPE, TERMINAL = 18, 19
OF_REGULAR, OF_PIPE, OF_TERMINAL = 1, 2, 11  # images/fdinfo.proto, fd_types
DESCRIBED, DESCRIBED_TYPE = 1, 3  # images/fdinfo.proto, fdinfo_entry
INFO, NAMED_BY = 2, 6  # images/tty.proto, tty_file_entry
FLAGS, OWNER = 3, 4  # the same in images/tty.proto and images/pipe.proto
UNSEEKABLE = (1 << 64) - 1
"""Numbers of CRIU's messages."""


def entries(files: bytes) -> Iterator[tuple[bytes, Entry]]:
    """Each entry of an image with files, as it is and by its fields."""
    for begin, end in spans(files):
        raw = files[begin:end]
        yield raw, dict(fields(raw))


def part(entry: Entry, number: int) -> Entry:
    """The message in one field of an entry. Empty if it has none."""
    found = entry.get(number, b"")
    return dict(fields(found)) if isinstance(found, bytes) else {}


def integer(entry: Entry, number: int) -> int:
    """The integer in one field of an entry, or zero."""
    found = entry.get(number, 0)
    return found if isinstance(found, int) else 0


def named(opened: Entry, number: int, name: str, mount: int) -> bytes:
    """The entry `number` of a file that is opened by its name, with flags and owner of what was `opened`.

    images/regfile.proto, reg_file_entry: id, flags, pos, fown, name, mnt_id (a signed integer, in zigzag).
    """
    regular: Entry = {1: number, 2: opened[FLAGS], 3: UNSEEKABLE, 5: opened[OWNER]}
    regular |= {6: name.encode(), 7: mount << 1}
    return body({TYPE: OF_REGULAR, ID: number, REGULAR: body(regular)})


def with_name(entry: Entry, number: int, name: str, mount: int) -> list[bytes]:
    """The entry of a terminal that CRIU finds by its name: before it that of the name, with this `number`."""
    terminal = part(entry, TERMINAL)
    tied = body({**terminal, NAMED_BY: number})
    return [named(terminal, number, name, mount), body({**entry, TERMINAL: tied})]


def rewritten(files: bytes, change: Callable[[Entry, Iterator[int]], list[bytes] | None]) -> bytes:
    """An image with files again. `change` gives what an entry becomes, or None if it stays as it is.

    It takes numbers for further entries from the iterator.
    """
    known = list(entries(files))
    fresh = count(max((integer(entry, ID) for _, entry in known), default=0) + 1)
    changed: list[bytes] = []
    for raw, entry in known:
        became = change(entry, fresh)
        changed += [raw] if became is None else became
    return image(files, changed)


def body(entry: Entry) -> bytes:
    """An entry as it is written."""
    return b"".join(written(number, value) for number, value in entry.items())


def image(files: bytes, changed: Collection[bytes]) -> bytes:
    """The image again, with these entries."""
    parts = [len(one).to_bytes(LENGTH_BYTES, "little") + one for one in changed]
    return files[:HEAD_BYTES] + b"".join(parts)


def change_descriptors(images: Path, plain: Collection[int]) -> None:
    """Let the descriptors of all processes know that these files are opened by their names."""
    for path in images.glob(DESCRIPTORS):
        path.write_bytes(changed_descriptors(path.read_bytes(), plain))


def changed_descriptors(descriptors: bytes, plain: Collection[int]) -> bytes:
    """Those of one process. No byte more or less."""
    changed = bytearray(descriptors)
    for begin, end in spans(changed):
        found = {place.number: place for place in places(changed, begin, end)}
        if found[DESCRIBED].value in plain and found[DESCRIBED_TYPE].value in {OF_PIPE, OF_TERMINAL}:
            changed[found[DESCRIBED_TYPE].at] = OF_REGULAR
    return bytes(changed)
