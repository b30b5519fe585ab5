"""Files opened so that nobody is told who watches them: a container's inotify and fanotify get no event of ours.

A listener of fanotify(7) is asked before a file is opened. With the question comes the file, opened in a way of which
the kernel reports neither the opening nor what is read, nor the closing (FMODE_NONOTIFY). Here that file is taken and
the permission is refused, so the opening that was asked for is not reported either. The kernel asks for single mounts:
private ones, by which no program of the container opens anything.

A kernel without permission events (CONFIG_FANOTIFY_ACCESS_PERMISSIONS) can't do this. There the events come.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .. import libc, proc
from ..apart import apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLOSE_ON_EXEC, CONTENT, REPORT_THREAD = 0x1, 0x4, 0x100
ADD, REMOVE, MOUNT, FILE_SYSTEM = 0x1, 0x2, 0x10, 0x100
OPENING, DIRECTORIES = 0x10000, 0x40000000
ALLOW, DENY = 1, 2
"""linux/fanotify.h: FAN_*."""

LARGE_FILE = 0o100000
OPENED = os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC | LARGE_FILE
EVENT = struct.Struct("=IBBHQii")
"""fanotify_event_metadata: length, version, reserved, length of this part, mask, descriptor, thread."""

ANSWER = struct.Struct("=iI")
OPEN_TREE, CLONE, HERE = 428, 1, -100
CLONE_NEWNS, CLONE_FS = 0x20000, 0x200
PATH_ONLY = 0o10000000
"""fcntl.h, O_PATH: of such an opening nobody is told anyway."""

READ_BYTES = 1 << 12
ANNOUNCED = "silent open\n"
"""How a CRIU calls itself while it opens a file so (`interposed.c`). It finds the file at `Listener.slot`."""


class Listener:
    """Takes what threads of this process, and a CRIU that dumps, open by mounts that are covered. Others open there.

    `slot` is the number of a descriptor, at which CRIU finds what it was refused last.
    """

    def __init__(self) -> None:
        """OSError where the kernel has no such events."""
        self._group = libc.call("fanotify_init", CLOSE_ON_EXEC | CONTENT | REPORT_THREAD, OPENED)
        self._taken: dict[int, int] = {}
        self.slot = os.open(os.devnull, os.O_RDONLY)
        threading.Thread(target=self._serve, daemon=True, name="silent").start()

    def cover(self, mount: int, how: int = ADD | MOUNT) -> None:
        """From now on listen to what is opened by the mount that this descriptor is in; with `REMOVE` no more.

        With `FILE_SYSTEM` in the place of `MOUNT`, by any mount of its file system.
        """
        place = ctypes.c_char_p(b"/proc/self/fd/%d" % mount)
        libc.call(
            "fanotify_mark",
            self._group,
            ctypes.c_uint(how),
            ctypes.c_uint64(OPENING | DIRECTORIES),
            HERE,
            place,
        )

    def taken(self) -> int | None:
        """What the calling thread was just refused, opened. None if it was not refused here."""
        return self._taken.pop(threading.get_native_id(), None)

    def _serve(self) -> None:
        while True:
            try:
                told = os.read(self._group, READ_BYTES)
            except OSError:  # the file can't be opened, and the kernel has refused it by itself
                continue
            while told:
                length, _, _, _, _, opened, thread = EVENT.unpack_from(told)
                told = told[length:]
                self._answer(opened, thread)

    def _answer(self, opened: int, thread: int) -> None:
        ours = Path(f"/proc/self/task/{thread}").exists()
        refused = ours or proc.read(thread, "comm") == ANNOUNCED
        if ours:
            if (forgotten := self._taken.pop(thread, None)) is not None:
                os.close(forgotten)
            self._taken[thread] = os.dup(opened)
        elif refused:
            os.dup2(opened, self.slot, inheritable=False)
        os.write(self._group, ANSWER.pack(opened, DENY if refused else ALLOW))
        os.close(opened)


_listeners: list[Listener] = []
_starting = threading.Lock()


def _listener() -> Listener:
    """The one of this process: a mount is covered as long as it exists, whoever uses it."""
    with _starting:
        if not _listeners:
            _listeners.append(Listener())
        return _listeners[0]


def cover(mount: int) -> bool:
    """Open without events by this mount from now on (`taken`). Returns whether the kernel can."""
    try:
        _listener().cover(mount)
    except OSError:
        return False
    return True


def taken() -> int | None:
    """What this thread was just refused, because its mount is covered: the file, opened to be read. Else None."""
    return _listeners[0].taken() if _listeners else None


def quietly(open_it: Callable[[], int]) -> int:
    """What `open_it` opens; where its mount is covered, the file that was opened in its place. OSError as it raises."""
    try:
        return open_it()
    except PermissionError:
        if (opened := taken()) is None:
            raise
        return opened


def slot() -> str:
    """For a CRIU that dumps: this process, and where it has what CRIU was refused. Empty if the kernel can't."""
    try:
        return f"{os.getpid()} {_listener().slot}"
    except OSError:
        return ""


class Lent:
    """Lets a CRIU open a frozen container's files without events, from `begin` to `end`: by the container's own mounts.

    The container waits if it opens a file meanwhile, until this process answers. So it has to be frozen.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._covered: list[tuple[int, int]] = []

    def begin(self) -> None:
        """Cover the mounts of the process. What can't be covered is opened with events.

        CRIU mounts the container's own file systems in memory once more. Of a file system that this host has mounted,
        too, only the container's mounts are covered: this process would wait for itself if it opened files there.
        """
        hosts = {mount.device for mount in proc.mounts("self")}
        for mount in proc.mounts(self._pid):
            what = FILE_SYSTEM if mount.kind == "tmpfs" and mount.device not in hosts else MOUNT
            with contextlib.suppress(OSError):
                top = os.open(f"/proc/{self._pid}/root{mount.point}", PATH_ONLY | os.O_CLOEXEC)
                self._covered.append((top, what))
                _listener().cover(top, ADD | what)

    def end(self) -> None:
        """Cover them no more. Repeated, it does nothing."""
        while self._covered:
            top, what = self._covered.pop()
            with contextlib.suppress(OSError):
                _listener().cover(top, REMOVE | what)
            os.close(top)


@contextlib.contextmanager
def tree(place: str) -> Iterator[int]:
    """The top of a private copy of what is mounted at a path of this host, without what is mounted below.

    What `beneath` opens in it is opened without events. It is a descriptor as of O_PATH.
    """
    with _covered(_copy(place)) as top:
        yield top


@contextlib.contextmanager
def view(pid: int, point: str) -> Iterator[int]:
    """The same of a path in the mount namespace of a process."""

    def copied() -> int:
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.call("unshare", CLONE_FS)  # the kernel refuses it to who shares a working directory
            libc.call("setns", namespace, CLONE_NEWNS)
        finally:
            os.close(namespace)
        return _copy(point)

    with _covered(apart(copied)) as top:
        yield top


def _copy(place: str) -> int:
    path = ctypes.c_char_p(os.fsencode(place))
    return libc.system_call(OPEN_TREE, HERE, path, ctypes.c_uint(CLONE | os.O_CLOEXEC), about=place)


@contextlib.contextmanager
def _covered(top: int) -> Iterator[int]:
    try:
        cover(top)
        yield top
    finally:
        os.close(top)
