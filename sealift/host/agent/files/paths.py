"""Where this host has what a container's process calls by a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import proc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def mounts(pid: int) -> dict[str, set[str]]:
    """Where a process sees which host directories: mount point to overlay layer, or to what is bound there.

    None once it has ended.
    """
    own = _mountinfo("self")
    points = {}
    for mount in _mountinfo(str(pid)):
        upper = re.search(r"upperdir=([^,\s]+)", mount.options)
        points[mount.point] = {upper.group(1)} if upper else set(_seen_from_here(mount, own))
    return points


@dataclass(frozen=True)
class _Mount:
    """A line of /proc/PID/mountinfo (proc(5)): the directory `root` of the file system `device` is at `point`."""

    device: str
    root: str
    point: str
    options: str


def _mountinfo(pid: str) -> list[_Mount]:
    mounts = []
    for line in proc.lines(pid, "mountinfo"):
        left, right = line.split(" - ", 1)
        _, _, device, root, point, *_ = left.split()
        mounts.append(_Mount(device, root, point, right))
    return mounts


def _seen_from_here(mount: _Mount, own: list[_Mount]) -> Iterator[str]:
    """The paths under which this process sees a directory that another has mounted."""
    for mine in own:
        if mine.device == mount.device and (mount.root + "/").startswith(mine.root.rstrip("/") + "/"):
            yield str(Path(mine.point) / mount.root[len(mine.root) :].lstrip("/"))


def containing(path: str, points: Mapping[str, set[str]]) -> str:
    """The mount point that a process's path lies below."""
    return max((p for p in points if path == p or path.startswith(p.rstrip("/") + "/")), key=len, default="/")


def host_paths(path: str, points: Mapping[str, set[str]]) -> set[str]:
    """Where this host has what a process calls by a path; `points` as of `mounts`."""
    point = containing(path, points)
    rest = path[len(point) :].lstrip("/")
    return {str(Path(origin) / rest) for origin in points.get(point, {"/"})}
