"""/proc/PID as it is: bytes that a workload chooses, of a process that may end while it is looked at.

Names of processes, files and mounts hold any byte but NUL. Lines end in a line feed alone: str.splitlines() would end
them at a dozen other characters, too. What is no UTF-8 is kept by surrogates, as os.fsdecode() does it. The kernel
escapes a line's end and, in mountinfo, blanks (proc(5)); all other bytes stand there as they are.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ENDED = {errno.ENOENT, errno.ESRCH, errno.EINVAL}
"""What the kernel says of a process that has ended, or is a zombie: its mountinfo is an invalid argument then."""


ESCAPED = re.compile(rb"\\([0-7]{3})")


def read(pid: int | str, name: str) -> str:
    """A file of a process. Empty once the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "surrogateescape")
    except OSError as failed:
        if failed.errno in ENDED:
            return ""
        raise


def lines(pid: int | str, name: str) -> list[str]:
    """The lines of a file of a process. None once the process has ended."""
    return [line for line in read(pid, name).split("\n") if line]


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status (proc(5)), by its words. Empty once the process has ended."""
    found = (line.partition(":") for line in lines(pid, "status"))
    return {name: value.strip(" \t") for name, _, value in found}


def stat(pid: int | str) -> tuple[str, list[str]]:
    """Name and further fields of /proc/PID/stat (proc(5)), from the state on; no fields once the process has ended.

    The name stands in parentheses and may hold some itself.
    """
    name, _, rest = read(pid, "stat").partition("(")[2].rpartition(")")
    return name, rest.split()


def fdinfo(pid: int, number: int | str) -> dict[str, int]:
    """The numbers in a descriptor's fdinfo (proc(5)), by their names. The flags are in octal there."""
    found = re.findall(r"^([\w-]+):\s*(\d+)$", read(pid, f"fdinfo/{number}"), re.MULTILINE)
    return {name: int(value, 8 if name == "flags" else 10) for name, value in found}


def threads(pid: int) -> list[int]:
    """The threads of a process. None once it has ended."""
    try:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError as failed:
        if failed.errno in ENDED:
            return []
        raise


def pids() -> list[int]:
    """All processes of this host."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


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
    """What a process has mounted, in the order in which it came. ProcessLookupError once it has ended."""
    found = []
    for line in os.fsencode(read(pid, "mountinfo")).split(b"\n")[:-1]:
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
    if not found:
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
    return found


def mount_of(pid: int, path: str) -> int:
    """The number of the mount in which a path is, as a process sees it. ProcessLookupError once it has ended."""
    numbers = {mount.point: mount.number for mount in mounts(pid)}
    above = [path, *(str(parent) for parent in PurePosixPath(path).parents)]
    return next(numbers[point] for point in above if point in numbers)


class Mapping(NamedTuple):
    """A line of maps (proc(5)): `place` is its name in map_files, `permissions` such as `rw-s`.

    Its name is left out: a line's end in it is escaped, but the sign that escapes is not. map_files tells.
    """

    place: str
    permissions: str
    inode: int


def mappings(pid: int | str) -> list[Mapping]:
    """What a process has mapped. None once it has ended."""
    found = []
    for line in os.fsencode(read(pid, "maps")).split(b"\n")[:-1]:
        place, permissions, _, _, inode = line.split(None, 5)[:5]
        found.append(Mapping(place.decode(), permissions.decode(), int(inode)))
    return found


def number_inside(pid: int) -> int:
    """A process's number in its own container (proc(5), NSpid)."""
    return int(status(pid).get("NSpid", str(pid)).split("\t")[-1])
