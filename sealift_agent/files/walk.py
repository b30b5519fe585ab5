"""Walk trees of files and read the state of each file, where the kernel does not report changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from . import beneath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Stamp(NamedTuple):
    """Values of which one changes with every change of a file, of its attributes, or of a directory's entries."""

    inode: int
    ctime_ns: int
    size: int


def stamps(root: Path) -> dict[str, Stamp]:
    """The stamp of everything in a tree, by its name relative to the tree."""
    found: dict[str, Stamp] = {}
    with beneath.tree(root) as top:
        for name, handle, entries in beneath.walk(top):
            own = os.fstat(handle)
            found[name] = Stamp(own.st_ino, own.st_ctime_ns, 0)
            for entry, seen in _files(entries):
                found[name + entry.name] = Stamp(seen.st_ino, seen.st_ctime_ns, seen.st_size)
    return found


def touched_since(root: Path, since_ns: int) -> set[str]:
    """Files that were written since then, by names relative to the tree. `since_ns` is of the real-time clock."""
    found: set[str] = set()
    with beneath.tree(root) as top:
        for name, _, entries in beneath.walk(top):
            for entry, seen in _files(entries):
                if entry.is_file(follow_symlinks=False) and seen.st_mtime_ns >= since_ns:
                    found.add(name + entry.name)
    return found


def _files(entries: list[os.DirEntry[str]]) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            try:
                yield entry, entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
