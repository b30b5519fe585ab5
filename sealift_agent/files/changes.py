"""What has changed in trees of files since a moment: told by the kernel (inotify), so that nobody has to walk them.

On overlayfs a file's new content is told at the directory where the container sees it, new names and a file's copying
up at the directory of the writable layer: both are watched. Writing through a shared mapping is told only when the file
is closed, and mapped no more: of files that are still open, whoever asks has to look for himself.
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
from ..wire import AgentError
from . import beneath

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
"""A quarter of the watches that this host allows is taken at most."""

OF_A_DUMP = re.compile(r"link_remap\.\d+")
"""CRIU makes such names for the time of a dump (`links`)."""


def is_of_a_dump(name: str) -> bool:
    """Whether the last part of a name is one of those."""
    return OF_A_DUMP.fullmatch(name.rpartition("/")[2]) is not None


TICK_NS = 20_000_000
"""A file's time stamp moves in steps of a kernel tick (1 to 10 ms): two writes in one step look like one."""


class NotTold(AgentError):
    """Names do not tell all that has changed, or directories can't be watched: the trees have to be walked."""


class Changes:
    """The names that have changed in some trees since its making. `views` is where a container sees some of them."""

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
            for tree, view in views.items():
                with beneath.tree(view) as shown:
                    self._watch_below(tree, self._tops[tree], shown)
        except (NotTold, OSError):
            self.close()
            raise

    def _watch_below(self, tree: str, top: int, shown: int) -> None:
        """Watch the directories of a tree where they are `shown`. Each before it is read: what comes later is told."""
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

    def _watch(self, tree: str, name: str, shown: int) -> None:
        handle = beneath.opened(shown, name.rstrip("/"), os.O_PATH | os.O_DIRECTORY)
        try:
            path = b"/proc/self/fd/%d" % handle
            number = libc.call("inotify_add_watch", self._handle, path, ASKED | ONLY_DIRECTORIES)
        except OSError as refused:
            raise NotTold(f"a directory can't be watched: {refused.strerror}") from refused
        finally:
            os.close(handle)
        self._left -= 1
        if self._left < 0:
            raise NotTold("there are too many directories")
        # A volume is met again where it is mounted in the view of the writable layer.
        self._where.setdefault(number, (tree, name))

    def begin_dump(self) -> None:
        """The container is frozen, and a dump is about to begin: names of its kind are the dump's from now on."""
        self._heard = list(self._told())
        self._dumped = True

    def names(self) -> dict[str, set[str]]:
        """What has changed up to now, by trees and relative to them: files, and the attributes of directories.

        NotTold where that is not all: directories that came or went, files with several names, lost messages.
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
                # It may be that file which had the name before, still open, and have another name by now.
                raise NotTold("a file has changed after its name did")
            (self._closed if mask & CLOSE_WRITE else self._names)[tree].add(name)
        found = {}
        for tree, names in self._names.items():
            written = {name for name in self._closed[tree] - names if self._look(tree, name) >= self.since_ns}
            for name in names:
                self._look(tree, name)
            if names | written:
                found[tree] = names | written
        return found

    def _rest(self) -> Iterator[tuple[int, int, str]]:
        """What was told since it was asked for last, but for what a dump does."""
        heard, self._heard = self._heard, []
        yield from heard
        for number, mask, entry in self._told():
            if not (self._dumped and OF_A_DUMP.fullmatch(entry)):
                yield number, mask, entry

    def _look(self, tree: str, name: str) -> int:
        """When it was changed, in nanoseconds; for what is gone by now, 0."""
        try:
            seen = beneath.lstat(self._tops[tree], name)
        except OSError as gone:
            if gone.errno not in beneath.RACES:
                raise NotTold(f"a file that has changed can't be looked at: {gone.strerror}") from gone
            if (tree, name) not in self._reused:
                raise NotTold("a file has changed that lost its name before") from None
            return 0
        # Overlayfs gives all its whiteouts, which are devices, one inode.
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
        """Watch no longer."""
        os.close(self._handle)
        self._open.close()
