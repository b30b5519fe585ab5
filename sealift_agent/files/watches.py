"""What the processes of a container watch (inotify, fanotify), and by which path it is found again.

Of a watched file the kernel shows only device, inode and a handle (proc(5), fdinfo). CRIU opens the handle at a mount
of that device. On overlayfs, where a container's own files are, handles can't be opened. There CRIU (4.2, criu/irmap.c)
looks for the inode in a few directories by the number that stat(2) gives, which may be another one than the kernel's
own: that of the layer from which a file was copied. So here the paths are found, and put into CRIU's images.

Nobody who watches the files is told of this (`silent`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import posixpath
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import held, libc, proc
from . import beneath, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GROUPS = ("cgroup", "cgroup2")
"""Kinds of file systems (proc(5), mountinfo)."""

SCANNED_AT_MOST = 500_000
WATCHED_AT_ONCE = 1000
DELETE_SELF = 0x400
MARK = re.compile(
    r"^(?P<kind>inotify wd:[0-9a-f]+|fanotify) ino:(?P<inode>[0-9a-f]+) sdev:(?P<device>[0-9a-f]+)"
    r"(?:.*?fhandle-bytes:(?P<size>[0-9a-f]+) fhandle-type:(?P<type>[0-9a-f]+) f_handle:(?P<handle>[0-9a-f]+))?",
    re.MULTILINE,
)


class Watched(NamedTuple):
    """A watched file, by the kernel's own numbers. The device has 12 bits of major and 20 of minor number."""

    device: int
    inode: int


class Found(NamedTuple):
    """Where the container finds it, and what stat(2) says there: device and inode, which may be other numbers."""

    path: str
    seen: tuple[int, int]


Paths = dict[Watched, Found]


class _Mark(NamedTuple):
    kind: str
    watched: Watched
    handle: bytes
    """In the form of name_to_handle_at(2)."""


def find(first: int, pids: Iterable[int], known: Paths | None = None) -> Paths:
    """Where the container, whose first process is `first`, finds what these processes watch. See `missing`.

    What is `known` is not looked for unless it is there no more. ProcessLookupError if the container has ended.
    """
    marks = {mark.watched: mark for pid in pids for mark in _marks(pid)}
    found = {
        watched: place
        for watched, place in (known or {}).items()
        if watched in marks and _seen(first, place.path) == place.seen
    }
    _resolve(first, {watched: mark for watched, mark in marks.items() if watched not in found}, found)
    return found


def missing(pid: int, found: Paths) -> list[str]:
    """What the process watches and has no path, as "inotify on inode N", or none yet when CRIU watches it again.

    The latter are control groups that were made inside, as systemd's: see `inner_groups`.
    """
    said = []
    for mark in _marks(pid):
        place = found.get(mark.watched)
        if place is None:
            said.append(f"{mark.kind} on inode {mark.watched.inode}")
        elif _is_of_inner_group(pid, place.path):
            said.append(f"{mark.kind} on a control group that was made inside")
    return said


def _is_of_inner_group(pid: int, path: str) -> bool:
    for mount in proc.mounts(pid):
        if mount.kind in GROUPS and path.startswith(f"{mount.point}/"):
            with contextlib.suppress(OSError), beneath.tree(f"/proc/{pid}/root/") as root:
                is_group = stat.S_ISDIR(beneath.lstat(root, path.lstrip("/")).st_mode)
                return is_group or posixpath.dirname(path) != mount.point
    return False


def _marks(pid: int) -> Iterator[_Mark]:
    for one in held.notifiers(held.descriptors([pid])):
        for found in MARK.finditer(proc.read(pid, f"fdinfo/{one.number}")):
            given = b""
            if found["handle"]:
                size = int(found["size"], 16)
                given = size.to_bytes(4, "little") + int(found["type"], 16).to_bytes(4, "little")
                given += bytes.fromhex(found["handle"])[:size]
            watched = Watched(int(found["device"], 16), int(found["inode"], 16))
            yield _Mark(found["kind"].partition(" ")[0], watched, given)


def _resolve(first: int, marks: dict[Watched, _Mark], found: Paths) -> None:
    mounts = proc.mounts(first) if marks else []
    for search in (_by_handle, _by_number, _by_watching):
        for mount in mounts:
            major, _, minor = mount.device.partition(":")
            device = int(major) << 20 | int(minor)
            wanted = [
                mark for watched, mark in marks.items() if watched.device == device and watched not in found
            ]
            if not wanted:
                continue
            with contextlib.suppress(OSError), silent.view(first, mount.point) as top:
                for watched, name in search(top, wanted):
                    path = posixpath.join(mount.point, name).rstrip("/") or "/"
                    there = beneath.lstat(top, name) if name else os.fstat(top)
                    # Something else may be mounted above it. A link would be followed at the restore.
                    if _seen(first, path) == (there.st_dev, there.st_ino) and not stat.S_ISLNK(there.st_mode):
                        found[watched] = Found(path, (there.st_dev, there.st_ino))


def _seen(first: int, path: str) -> tuple[int, int] | None:
    """Device and inode of what the container has at a path, as stat(2) says."""
    with contextlib.suppress(OSError), beneath.tree(f"/proc/{first}/root/") as root:
        seen = beneath.lstat(root, path.lstrip("/"))
        return seen.st_dev, seen.st_ino
    return None


def _by_handle(top: int, wanted: Sequence[_Mark]) -> Iterator[tuple[Watched, str]]:
    """Open the handles. The path of what is opened is one in the copy of the mount."""
    with beneath.directory(top, "") as mount:
        for mark in wanted:
            with contextlib.suppress(OSError):
                buffer = ctypes.create_string_buffer(mark.handle)
                opened = (
                    libc.call("open_by_handle_at", mount, buffer, silent.PATH_ONLY) if mark.handle else -1
                )
                if opened >= 0:
                    try:
                        name = str(Path(f"/proc/self/fd/{opened}").readlink()).lstrip("/")
                        if os.path.samestat(os.fstat(opened), beneath.lstat(top, name)):
                            yield mark.watched, name
                    finally:
                        os.close(opened)


def _by_number(top: int, wanted: Sequence[_Mark]) -> Iterator[tuple[Watched, str]]:
    """Look for the numbers, as stat(2) gives them."""
    numbers = {mark.watched.inode: mark.watched for mark in wanted}
    for name, number in _names(top):
        if (watched := numbers.pop(number, None)) is not None:
            yield watched, name
        if not numbers:
            return


def _by_watching(top: int, wanted: Sequence[_Mark]) -> Iterator[tuple[Watched, str]]:
    """Watch each file, and read what the kernel shows of these watches. Nobody else is told of a watch."""
    missing = {mark.watched for mark in wanted}
    names = [name for name, _ in _names(top)]
    for begin in range(0, len(names), WATCHED_AT_ONCE):
        for watched, name in _watch(top, names[begin : begin + WATCHED_AT_ONCE]).items():
            if watched in missing:
                missing.discard(watched)
                yield watched, name
        if not missing:
            return


def _watch(top: int, names: Sequence[str]) -> dict[Watched, str]:
    handle = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = {}
    try:
        for name in names:
            with contextlib.suppress(OSError):  # it is gone, or there are too many watches
                seen = beneath.opened(top, name, silent.PATH_ONLY | os.O_NOFOLLOW) if name else os.dup(top)
                try:
                    place = b"/proc/self/fd/%d" % seen
                    numbers[libc.call("inotify_add_watch", handle, place, DELETE_SELF)] = name
                finally:
                    os.close(seen)
        found = {}
        for mark in MARK.finditer(proc.read("self", f"fdinfo/{handle}")):
            number = int(mark["kind"].partition(":")[2], 16)
            found[Watched(int(mark["device"], 16), int(mark["inode"], 16))] = numbers[number]
        return found
    finally:
        os.close(handle)


def _names(top: int) -> Iterator[tuple[str, int]]:
    """All names in a copy of a mount, with the numbers of their inodes, up to `SCANNED_AT_MOST`."""
    own = os.fstat(top)
    yield "", own.st_ino
    if not stat.S_ISDIR(own.st_mode):
        return
    left = SCANNED_AT_MOST
    for place, _, entries in beneath.walk(top):
        for entry in entries:
            left -= 1
            with contextlib.suppress(OSError):
                # The number that a directory shows of an entry may be another one on overlayfs.
                yield place + entry.name, entry.stat(follow_symlinks=False).st_ino
        if left < 0:
            return
