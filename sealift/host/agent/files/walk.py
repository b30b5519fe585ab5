"""Trees of files, walked: what every file looks like, for hosts and moments in which nobody tells of changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """What changes with every change of a file, its attributes or, for a directory, its entries."""

    inode: int
    ctime_ns: int
    size: int


def stamps(root: Path) -> dict[str, Stamp]:
    """Of everything in a tree, by its path."""
    found: dict[str, Stamp] = {}
    places = [str(root)]
    while places:
        place = places.pop()
        try:
            entries = list(os.scandir(place))
            own = Path(place).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        found[place] = Stamp(own.st_ino, own.st_ctime_ns, 0)
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    places.append(entry.path)
                    continue
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found[entry.path] = Stamp(stat.st_ino, stat.st_ctime_ns, stat.st_size)
    return found


def touched_since(root: Path, since_ns: int) -> set[str]:
    """Files that were written since then, by names relative to the tree. Nanoseconds of the real-time clock."""
    found: set[str] = set()
    places = [str(root)]
    while places:
        try:
            entries = list(os.scandir(places.pop()))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    places.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and _mtime_ns(entry) >= since_ns:
                    found.add(os.path.relpath(entry.path, root))
            except FileNotFoundError:
                continue
    return found


def _mtime_ns(entry: os.DirEntry[str]) -> int:
    return entry.stat(follow_symlinks=False).st_mtime_ns
