r"""Files of /proc, read so that no name in them can pass for another field, another line or another file.

A container chooses the names of its files, directories and processes. The kernel escapes a line's end and, in
mountinfo, blanks (proc(5)); all other bytes stand there as they are: some that are not UTF-8, and some that Python
takes for blanks or ends of lines in text (`\r`, `\x0b`, U+00A0, U+2028).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

ESCAPED = re.compile(rb"\\([0-7]{3})")


def lines(path: str | Path) -> list[str]:
    """A file's lines, as the kernel ends them. Bytes that are not UTF-8 stay what they are (`os.fsencode`)."""
    return os.fsdecode(Path(path).read_bytes()).split("\n")[:-1]


def unescaped(field: bytes) -> str:
    r"""A field without the kernel's escapes: `\040` is a blank."""
    return os.fsdecode(ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field))


class Mount(NamedTuple):
    """A line of mountinfo (proc(5)): the directory `root` of the file system `device` is at `point`.

    `options` are those of the file system, by their names; of a flag without a value, the value is empty.
    """

    number: int
    device: str
    root: str
    point: str
    kind: str
    options: dict[str, str]


def mounts(pid: int | str) -> list[Mount]:
    """What a process has mounted, in the order in which it came."""
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_bytes().split(b"\n")[:-1]:
        left, right = (half.split(b" ") for half in line.split(b" - ", 1))
        options = (word.partition(b"=") for word in right[-1].split(b","))
        found.append(
            Mount(
                int(left[0]),
                left[2].decode(),
                unescaped(left[3]),
                unescaped(left[4]),
                unescaped(right[0]),
                {unescaped(name): unescaped(value) for name, _, value in options},
            )
        )
    return found


class Mapping(NamedTuple):
    """A line of maps (proc(5)): `place` is its name in map_files, `permissions` such as `rw-s`.

    Its name is left out: a line's end in it is escaped, but the sign that escapes is not. map_files tells.
    """

    place: str
    permissions: str
    inode: int


def mappings(pid: int) -> list[Mapping]:
    """What a process has mapped."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_bytes().split(b"\n")[:-1]:
        place, permissions, _, _, inode = line.split(None, 5)[:5]
        found.append(Mapping(place.decode(), permissions.decode(), int(inode)))
    return found
