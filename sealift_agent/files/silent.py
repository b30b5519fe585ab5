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

from .. import libc
from ..apart import apart

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOSE_ON_EXEC, CONTENT, REPORT_THREAD = 0x1, 0x4, 0x100
ADD, MOUNT = 0x1, 0x10
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


class Listener:
    """Takes what threads of this process open by mounts that are covered. All others may open there."""

    def __init__(self) -> None:
        """OSError where the kernel has no such events."""
        self._group = libc.call("fanotify_init", CLOSE_ON_EXEC | CONTENT | REPORT_THREAD, OPENED)
        self._taken: dict[int, int] = {}
        threading.Thread(target=self._serve, daemon=True, name="silent").start()

    def cover(self, mount: int) -> None:
        """From now on listen to what is opened by the mount that this descriptor is in."""
        place = ctypes.c_char_p(b"/proc/self/fd/%d" % mount)
        libc.call(
            "fanotify_mark",
            self._group,
            ctypes.c_uint(ADD | MOUNT),
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
        if ours:
            if (forgotten := self._taken.pop(thread, None)) is not None:
                os.close(forgotten)
            self._taken[thread] = opened
        os.write(self._group, ANSWER.pack(opened, DENY if ours else ALLOW))
        if not ours:
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
