"""Paths on this host for what a container's process finds at a path of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .. import proc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def mounts(pid: int) -> dict[str, set[str]]:
    """A process's mounts: mount point to the host directories there (layers of an overlay, or what is bound).

    ProcessLookupError if it has ended.
    """
    own = proc.mounts("self")
    points = {}
    for mount in proc.mounts(pid):
        upper = mount.options.get("upperdir")
        points[mount.point] = {upper} if upper else set(_seen_from_here(mount, own))
    return points


def _seen_from_here(mount: proc.Mount, own: list[proc.Mount]) -> Iterator[str]:
    """The paths by which this process sees a directory that another process has mounted."""
    for mine in own:
        if mine.device == mount.device and (mount.root + "/").startswith(mine.root.rstrip("/") + "/"):
            yield str(Path(mine.point) / mount.root[len(mine.root) :].lstrip("/"))


def containing(path: str, points: Mapping[str, set[str]]) -> str:
    """The mount point that has a process's path."""
    return max((p for p in points if path == p or path.startswith(p.rstrip("/") + "/")), key=len, default="/")


def host_paths(path: str, points: Mapping[str, set[str]]) -> set[str]:
    """The paths on this host for a process's path; `points` are its `mounts`."""
    point = containing(path, points)
    rest = path[len(point) :].lstrip("/")
    return {str(Path(origin) / rest) for origin in points.get(point, {"/"})}
