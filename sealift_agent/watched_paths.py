"""CRIU's images get the path of each watched file: see `files.watches`.

CRIU (4.2, criu/fsnotify.c) restores a watch by its path if the image has one, else by the file's handle, which is of no
use on another host. In a dump it refuses a watch whose handle can't be opened, and of a file in a volume it takes the
path below the volume for the path in the container. So the library that is loaded into it gives it a name that
leads nowhere (`interposed.c`), and here the images get the right one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Union

from . import by_name
from .files.watches import Watched
from .protobuf import fields, written
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .files.watches import Paths

INOTIFY, FANOTIFY = 13, 14  # images/fdinfo.proto, file_entry
WATCHES, MARKS = 5, 6  # images/fsnotify.proto: inotify_file_entry, fanotify_file_entry
INODE, DEVICE, HANDLE = 2, 5, 7  # inotify_wd_entry
MARK_DEVICE, BY_INODE = 6, 7  # fanotify_mark_entry
MARK_INODE, MARK_HANDLE = 1, 2  # fanotify_inode_mark_entry
PATH, MOUNT = 4, 5  # images/fh.proto, fh_entry
"""Numbers of CRIU's messages."""

Fields = list[tuple[int, Union[int, bytes]]]


def put(images: Path, paths: Paths) -> None:
    """Change the images in place. AgentError for a file that has no path."""
    files = images / by_name.FILES
    if files.exists():  # otherwise the processes have nothing open
        files.write_bytes(with_paths(files.read_bytes(), paths))


def with_paths(files: bytes, paths: Paths) -> bytes:
    """An image of files with these paths."""

    def with_path(entry: by_name.Entry, _: Iterator[int]) -> list[bytes] | None:
        for number, parts, watch in ((INOTIFY, WATCHES, _watch), (FANOTIFY, MARKS, _mark)):
            if isinstance(notifier := entry.get(number), bytes):
                changed = [
                    (field, watch(value, paths) if field == parts and isinstance(value, bytes) else value)
                    for field, value in fields(notifier)
                ]
                return [by_name.body({**entry, number: _body(changed)})]
        return None

    return by_name.rewritten(files, with_path)


def _watch(watch: bytes, paths: Paths) -> bytes:
    entry = dict(fields(watch))
    watched = Watched(by_name.integer(entry, DEVICE), by_name.integer(entry, INODE))
    return _body([(field, _handle(field, value, HANDLE, watched, paths)) for field, value in fields(watch)])


def _mark(mark: bytes, paths: Paths) -> bytes:
    """A mark on a mount has no file."""
    entry = dict(fields(mark))
    by_inode = by_name.part(entry, BY_INODE)
    if not by_inode:
        return mark
    watched = Watched(by_name.integer(entry, MARK_DEVICE), by_name.integer(by_inode, MARK_INODE))
    named = {field: _handle(field, value, MARK_HANDLE, watched, paths) for field, value in by_inode.items()}
    return by_name.body({**entry, BY_INODE: by_name.body(named)})


def _handle(field: int, value: int | bytes, handle: int, watched: Watched, paths: Paths) -> int | bytes:
    """A field again. If it is the handle, it has the path, which begins at the container's root."""
    if field != handle or not isinstance(value, bytes):
        return value
    found = paths.get(watched)
    if found is None:
        raise AgentError(
            f"a program watches the file with inode {watched.inode}, which has no path in the container: let it end "
            "that watch, or start it again",
            "final dump",
        )
    return _body(
        [
            *((number, part) for number, part in fields(value) if number not in {PATH, MOUNT}),
            (PATH, os.fsencode(found.path)),
        ]
    )


def _body(parts: Fields) -> bytes:
    return b"".join(written(number, value) for number, value in parts)
