"""What has changed in trees of files since a moment. The kernel reports it (inotify), so that nobody has to walk them.

On overlayfs a file's new content is reported at the directory that the container sees. New names and the copying up of
a file are reported at the directory of the writable layer. So both are watched. A write through a shared mapping is
reported only when the file is closed and no longer mapped. So a caller has to check the files that are still open.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import libc
from ..constants import SINGLE
from ..wire import AgentError
from . import beneath
from .enclosure import INSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, OVERFLOW, IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
DIRECTORY, ONLY_DIRECTORIES = 0x40000000, 0x01000000
ASKED = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
"""inotify(7), linux/inotify.h."""

EVENT = struct.Struct("iIII")
READ_BYTES = 1 << 16
MOST = Path("/proc/sys/fs/inotify/max_user_watches")
SHARE = 4
"""The divisor of the host's limit of watches: at most a quarter is used."""

OF_A_DUMP = re.compile(r"link_remap\.\d+")
"""Names that CRIU makes during a dump (`links`)."""


def is_of_a_dump(name: str) -> bool:
    """Whether the last part of a name is such a name."""
    return OF_A_DUMP.fullmatch(name.rpartition("/")[2]) is not None


TICK_NS = 20_000_000
"""A file's time stamp advances with the kernel tick (1 to 10 ms), so two writes in one tick can't be told apart."""


class NotTold(AgentError):
    """Names do not describe all changes, or directories can't be watched. The trees have to be walked."""


class Changes:
    """The names that have changed in some trees since this was made. `views` are places where a container sees them."""

    def __init__(self, trees: Mapping[str, Path], views: Mapping[str, Path]) -> None:
        self.since_ns = time.time_ns() - TICK_NS
        self._where: dict[int, tuple[str, str]] = {}
        self._names: dict[str, set[str]] = {name: set() for name in trees}
        self._closed: dict[str, set[str]] = {name: set() for name in trees}
        self._reused: set[tuple[str, str]] = set()
        self._heard: list[tuple[int, int, str]] = []
        self._dumped = False
        self._left = int(MOST.read_text()) // SHARE
        try:
            self._handle = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as refused:
            raise NotTold(f"there is no inotify: {refused.strerror}") from refused
        self._open = contextlib.ExitStack()
        try:
            self._tops = {tree: self._open.enter_context(beneath.tree(root)) for tree, root in trees.items()}
            for tree, top in self._tops.items():
                self._watch_below(tree, top, top)
                if tree.startswith(
                    SINGLE
                ):  # its changes are reported at its directory on the host, or at itself
                    self._watch(tree, INSIDE, top, 0)
            for tree, view in views.items():
                with beneath.tree(view) as shown:
                    self._watch_below(tree, self._tops[tree], shown)
        except (NotTold, OSError):
            self.close()
            raise

    def _watch_below(self, tree: str, top: int, shown: int) -> None:
        """Watch the directories of a tree where they are `shown`.

        Each is watched before it is read, so nothing is missed.
        """
        names = [""]
        while names:
            name = names.pop()
            try:
                self._watch(tree, name, shown)
                with beneath.directory(top, name.rstrip("/")) as handle:
                    names += [
                        f"{name}{e.name}/" for e in os.scandir(handle) if e.is_dir(follow_symlinks=False)
                    ]
            except OSError as gone:
                if gone.errno not in beneath.RACES:
                    raise NotTold(f"a directory can't be watched: {gone.strerror}") from gone

    def _watch(self, tree: str, name: str, shown: int, only: int = ONLY_DIRECTORIES) -> None:
        handle = beneath.opened(shown, name.rstrip("/"), os.O_PATH | (os.O_DIRECTORY if only else 0))
        try:
            path = b"/proc/self/fd/%d" % handle
            number = libc.call("inotify_add_watch", self._handle, path, ASKED | only)
        except OSError as refused:
            raise NotTold(f"a directory can't be watched: {refused.strerror}") from refused
        finally:
            os.close(handle)
        self._left -= 1
        if self._left < 0:
            raise NotTold("there are too many directories")
        # A volume is found again where it is mounted in the view of the writable layer.
        self._where.setdefault(number, (tree, name))

    def begin_dump(self) -> None:
        """The container is frozen and a dump begins: from now on CRIU's names (`OF_A_DUMP`) are ignored."""
        self._heard = list(self._told())
        self._dumped = True

    def names(self) -> dict[str, set[str]]:
        """What has changed up to now, for each tree and relative to it: files, and the attributes of directories.

        Raises NotTold if that is incomplete: directories came or went, a file has several names, or messages were lost.
        """
        for number, mask, entry in self._rest():
            if mask & (DELETE_SELF | MOVE_SELF | UNMOUNT | OVERFLOW | IGNORED):
                raise NotTold("a directory has gone, or messages were lost")
            if mask & DIRECTORY and not mask & ATTRIB:
                raise NotTold("a directory has come or gone")
            tree, directory = self._where[number]
            name = directory + entry if entry else directory.rstrip("/")
            if mask & (DELETE | MOVED_FROM | MOVED_TO):
                self._reused.add((tree, name))
            elif mask & (MODIFY | ATTRIB | CLOSE_WRITE) and (tree, name) in self._reused:
                # It may be the file that had the name before. It is still open, and may have another name now.
                raise NotTold("a file has changed after its name did")
            (self._closed if mask & CLOSE_WRITE else self._names)[tree].add(name)
        found = {}
        for tree, names in self._names.items():
            written = {
                name for name in self._closed[tree] - names if self._changed_ns(tree, name) >= self.since_ns
            }
            for name in names:
                self._changed_ns(tree, name)
            if names | written:
                found[tree] = names | written
        return found

    def _rest(self) -> Iterator[tuple[int, int, str]]:
        """The messages since the last call, without those that a dump causes."""
        heard, self._heard = self._heard, []
        yield from heard
        for number, mask, entry in self._told():
            if not (self._dumped and OF_A_DUMP.fullmatch(entry)):
                yield number, mask, entry

    def _changed_ns(self, tree: str, name: str) -> int:
        """When it was changed, in nanoseconds; 0 if it is gone."""
        try:
            seen = beneath.lstat(self._tops[tree], name)
        except OSError as gone:
            if gone.errno not in beneath.RACES:
                raise NotTold(f"a file that has changed can't be read: {gone.strerror}") from gone
            if (tree, name) not in self._reused:
                raise NotTold("a file has changed that lost its name before") from None
            return 0
        # On overlayfs all whiteouts, which are devices, have one inode.
        if not name or (
            seen.st_nlink > 1 and not stat.S_ISDIR(seen.st_mode) and not stat.S_ISCHR(seen.st_mode)
        ):
            raise NotTold("a file with several names has changed, or a tree's root")
        return seen.st_ctime_ns

    def _told(self) -> Iterator[tuple[int, int, str]]:
        """Watch, mask and name of each message."""
        while True:
            try:
                data = os.read(self._handle, READ_BYTES)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                number, mask, _, length = EVENT.unpack_from(data, at)
                at += EVENT.size + length
                yield number, mask, os.fsdecode(data[at - length : at].rstrip(b"\0"))

    def close(self) -> None:
        """End all watches."""
        os.close(self._handle)
        self._open.close()
