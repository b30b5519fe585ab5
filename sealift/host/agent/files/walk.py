"""Trees of files, walked: what every file looks like, for hosts and moments in which nobody tells of changes."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}
"""What the kernel says of a name that was there a moment ago: removed, or another kind of file by now."""


@contextlib.contextmanager
def may_go() -> Iterator[None]:
    """What is looked at in the block may vanish meanwhile: a program that runs does what it wants with its files."""
    try:
        yield
    except OSError as failed:
        if failed.errno not in GONE:
            raise


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
        entries: list[os.DirEntry[str]] = []
        with may_go():
            entries = list(os.scandir(place))
            own = Path(place).lstat()
            found[place] = Stamp(own.st_ino, own.st_ctime_ns, 0)
        for entry in entries:
            with may_go():
                if entry.is_dir(follow_symlinks=False):
                    places.append(entry.path)
                    continue
                stat = entry.stat(follow_symlinks=False)
                found[entry.path] = Stamp(stat.st_ino, stat.st_ctime_ns, stat.st_size)
    return found


def touched_since(root: Path, since_ns: int) -> set[str]:
    """Files that were written since then, by names relative to the tree. Nanoseconds of the real-time clock."""
    found: set[str] = set()
    places = [str(root)]
    while places:
        entries: list[os.DirEntry[str]] = []
        with may_go():
            entries = list(os.scandir(places.pop()))
        for entry in entries:
            with may_go():
                if entry.is_dir(follow_symlinks=False):
                    places.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and _mtime_ns(entry) >= since_ns:
                    found.add(os.path.relpath(entry.path, root))
    return found


def _mtime_ns(entry: os.DirEntry[str]) -> int:
    return entry.stat(follow_symlinks=False).st_mtime_ns
