"""Open files of a tree that belongs to a container, so that no file outside of it is reached.

Whoever can write to a tree can replace a directory by a link at any moment. So no link in a name is followed, and none
leads upwards (openat2(2)). A name may be longer than PATH_MAX, and is then opened in pieces. Where `silent` covers the
mount, nobody who watches the file is told.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

from .. import libc
from . import silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENAT2 = 437
NO_MAGIC_LINKS, NO_LINKS, BENEATH = 0x02, 0x04, 0x08
"""linux/openat2.h, RESOLVE_*."""

HOW = struct.Struct("=QQQ")
"""open_how: flags, mode, resolve."""

PATH_BYTES = 4095
"""PATH_MAX without the byte that ends it."""

RACES = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
"""Errors for a name that was removed, or whose directory was removed or replaced."""


def opened(top: int, name: str, flags: int) -> int:
    """Open a file by its name relative to the open directory `top`; "" is `top` itself. OSError, with ELOOP for a link.

    With O_PATH and O_NOFOLLOW a link as the last part of a name is opened itself.
    """
    whole = rest = os.fsencode(name) or b"."
    place = top
    try:
        while len(rest) > PATH_BYTES:
            first, rest = _split(rest)
            place, above = _open(place, first, os.O_PATH | os.O_DIRECTORY, whole), place
            if above != top:
                os.close(above)
        return _open(place, rest, flags, whole)
    finally:
        if place != top:
            os.close(place)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """The directories that can be opened at once, and the rest of the name."""
    end = name.rfind(b"/", 0, PATH_BYTES)
    if end <= 0:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    return name[:end], name[end + 1 :]


def _open(place: int, name: bytes, flags: int, whole: bytes) -> int:
    how = HOW.pack(flags | os.O_CLOEXEC, 0, NO_MAGIC_LINKS | NO_LINKS | BENEATH)
    return silent.quietly(
        lambda: libc.system_call(
            OPENAT2, place, ctypes.c_char_p(name), how, ctypes.c_size_t(HOW.size), about=whole
        )
    )


@contextlib.contextmanager
def directory(top: int, name: str) -> Iterator[int]:
    """Open a directory of a tree for reading."""
    handle = opened(top, name, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def tree(root: str | Path) -> Iterator[int]:
    """Open a tree's root directory. The path to it belongs to the host, so links in it are followed."""
    handle = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def is_empty(top: int) -> bool:
    """Whether the directory has no entries."""
    with directory(top, "") as handle:
        return next(os.scandir(handle), None) is None


def lstat(top: int, name: str) -> os.stat_result:
    """The status of a file; of a link its own. OSError, with one of `RACES` if the file is not there."""
    handle = opened(top, name, os.O_PATH | os.O_NOFOLLOW)
    try:
        return os.fstat(handle)
    finally:
        os.close(handle)


def walk(top: int) -> Iterator[tuple[str, int, list[os.DirEntry[str]]]]:
    """For each directory of a tree: its name with a slash at the end ("" for the root), a descriptor, its entries.

    A directory comes before those in it. Directories that disappear meanwhile are left out.
    """
    places = [""]
    while places:
        name = places.pop()
        try:
            with directory(top, name.rstrip("/")) as handle:
                entries = list(os.scandir(handle))
                places += [f"{name}{entry.name}/" for entry in entries if entry.is_dir(follow_symlinks=False)]
                yield name, handle, entries
        except OSError as gone:
            if gone.errno not in RACES:
                raise
