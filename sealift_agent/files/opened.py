"""Files of a container that its processes have open or mapped. The kernel may not report writes to them.

/proc gives a path, but the file may have lost this name, or another file may have it now. So a file is identified by
device and inode, as its own process sees them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .. import proc
from ..constants import SINGLE
from . import beneath, silent
from .changes import NotTold
from .enclosure import INSIDE
from .paths import containing, host_paths, mounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LOST = " (deleted)"


def is_lost(target: str, opened: os.stat_result) -> bool:
    """Whether an open file has lost this name but still has one; `target` is the link /proc/PID/fd."""
    return target.endswith(LOST) and opened.st_nlink > 0 and not stat.S_ISDIR(opened.st_mode)


def holds_lost(pid: int) -> bool:
    """Whether a process has a file open that has lost its name."""
    for handle in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            target = str(handle.readlink())
            if target.endswith(LOST) and is_lost(target, handle.stat()):
                return True
    return False


def written_through_mappings(processes: Sequence[int], trees: Mapping[str, Path]) -> dict[str, set[str]]:
    """The files that any of the processes has mapped shared and writable, for each tree and relative to it.

    For a file that has lost its name, all its other names.
    """
    found: dict[str, set[str]] = {}
    looked: set[tuple[int, int]] = set()
    points = _Points()
    for pid in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for mapping in proc.mappings(pid):
                if not mapping.inode or mapping.permissions[1::2] != "ws":
                    continue
                handle = Path(f"/proc/{pid}/map_files/{mapping.place}")
                with contextlib.suppress(FileNotFoundError):
                    seen = handle.stat()
                    if stat.S_ISREG(seen.st_mode) and seen.st_nlink and _identity(seen) not in looked:
                        looked.add(_identity(seen))
                        for name in _mapped_names(processes, pid, handle, seen, points):
                            _sort_in(found, name, trees)
    return found


def _identity(seen: os.stat_result) -> tuple[int, int]:
    return seen.st_dev, seen.st_ino


class _Points:
    """The mounts of processes. They are read once for all processes of a mount namespace."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, set[str]]] = {}

    def __call__(self, pid: int) -> dict[str, set[str]]:
        namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
        if namespace not in self._found:
            self._found[namespace] = mounts(pid)
        return self._found[namespace]


def _mapped_names(
    processes: Sequence[int], pid: int, handle: Path, seen: os.stat_result, points: _Points
) -> set[str]:
    """The paths on this host of a file that a process has mapped."""
    path = _path((pid, *processes[:1]), handle, seen)
    names = {str(name) for name in other_names(pid, handle)} if path is None else set()
    return names or host_paths(path or str(handle.readlink()), points(pid))


def open_and_changed(
    processes: Sequence[int], trees: Mapping[str, Path], since_ns: int
) -> dict[str, set[str]]:
    """The files that are open and have changed since then, for each tree and relative to it.

    Raises NotTold if one has lost its name.
    """
    found: dict[str, set[str]] = {}
    points = _Points()
    for pid in processes:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    seen = entry.stat()
                    if seen.st_ctime_ns < since_ns or not stat.S_ISREG(seen.st_mode) or not seen.st_nlink:
                        continue
                    path = _path((pid, *processes[:1]), Path(entry.path), seen)
                    if path is None:
                        raise NotTold("a file has changed that has lost its name")
                    for name in host_paths(path, points(pid)):
                        _sort_in(found, name, trees)
    return found


def _sort_in(found: dict[str, set[str]], path: str, trees: Mapping[str, Path]) -> None:
    for tree, root in trees.items():
        if tree.startswith(SINGLE):
            if path == str(root):
                found.setdefault(tree, set()).add(INSIDE)
        elif path.startswith(f"{root}/"):
            found.setdefault(tree, set()).add(os.path.relpath(path, root))


def _path(views: Sequence[int], handle: Path, seen: os.stat_result) -> str | None:
    """The name of an open file. None if the name is gone, or belongs to another file now.

    The name is tried as each of the processes `views` sees it, since one may have changed its root (chroot(2)).
    """
    path = str(handle.readlink())
    for pid in views:
        with contextlib.suppress(OSError), beneath.tree(f"/proc/{pid}/root/") as top:
            if os.path.samestat(beneath.lstat(top, path.lstrip("/")), seen):
                return path
    return None


def other_names(pid: int, handle: Path) -> Iterator[Path]:
    """The paths on this host of a file's other names. `handle` is an entry of /proc/PID/fd or of a similar directory.

    There is none if the file is in a layer of an image and its name was removed. CRIU can't link such a file either,
    and puts its content into the images.
    """
    opened = handle.stat()
    points = mounts(pid)
    point = containing(str(handle.readlink()).removesuffix(LOST), points)
    with beneath.tree(f"/proc/{pid}/root/") as top, contextlib.ExitStack() as stack:
        shown = beneath.opened(top, point.strip("/"), os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, shown)
        for place in points[point] or {f"/proc/{pid}/root{point}"}:
            # On overlayfs a file that was copied up shows the number that it had in its layer, so all names are tried.
            for numbers in ({opened.st_ino}, None):
                # What only the container has mounted, such as a tmpfs, can be copied only as the container sees it.
                tree = silent.tree(place) if points[point] else silent.view(pid, point)
                with contextlib.suppress(OSError), tree as copy:
                    for name in _names(copy, numbers):
                        with contextlib.suppress(OSError):
                            if os.path.samestat(beneath.lstat(shown, name), opened):
                                yield Path(place, name)


def _names(top: int, numbers: set[int] | None) -> Iterator[str]:
    """All names in a tree, relative to it, without directories. With `numbers`, only names of these inodes."""
    for place, _, entries in beneath.walk(top):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False) and (numbers is None or entry.inode() in numbers):
                yield place + entry.name
