"""Control groups that a container has made inside its own: read in the freeze, made again after the restore.

CRIU is told to leave groups alone (`manage-cgroups`), so all processes are restored in the container's own. The list of
groups travels as a file among the images, if there are any.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from . import cgroup, proc
from .messages import Misunderstood, parse
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE = "groups.json"

FIRST_VERSION = (
    *("cpuset.cpus", "cpuset.mems", "cpuset.cpu_exclusive", "cpuset.mem_exclusive"),
    *("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.rt_period_us", "cpu.rt_runtime_us"),
    *(
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.swappiness",
    ),
    *("pids.max", "blkio.weight", "net_cls.classid", "notify_on_release"),
)
SECOND_VERSION = (
    *("cgroup.type", "cpuset.cpus", "cpuset.mems", "cpuset.cpus.partition"),
    *("cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle", "io.weight", "io.max"),
    *("memory.min", "memory.low", "memory.high", "memory.max", "memory.oom.group"),
    *("memory.swap.high", "memory.swap.max", "memory.zswap.max", "pids.max"),
    *("cgroup.max.depth", "cgroup.max.descendants", "cgroup.freeze"),
)
SETTINGS = (*FIRST_VERSION, *SECOND_VERSION)
"""What can be set, in an order in which it can be set (the kernel's documentation, cgroup-v1 and cgroup-v2)."""

CONTROLLERS = "cgroup.subtree_control"
"""Version 2: what a group hands down. Only one without processes of its own can."""

MOST = 1 << 16


class Inner(NamedTuple):
    """A group: the hierarchy (empty with version 2), its path below the container's, settings, and the processes in it.

    Processes are numbers in the container. The path is empty for the container's own group, of which only what it hands
    down is listed.
    """

    hierarchy: str
    path: str
    settings: dict[str, str]
    processes: list[int]


def read(first: int) -> list[Inner]:
    """The groups inside a container's own, outer ones before inner. `first` is its first process on this host."""
    return [one for group in _own(first) for one in _inside(group)]


def write(images: Path, inner: list[Inner]) -> None:
    """Put the list among the images, if there is anything."""
    if inner:
        (images / FILE).write_text(json.dumps({"groups": inner}))


def put_back(images: Path, first_process: Callable[[], int]) -> None:
    """Make the groups of the list again, and put the restored processes into them.

    AgentError if one can't be made as it was, or if the list can't be understood.
    """
    try:
        listed = _parsed((images / FILE).read_bytes())
    except FileNotFoundError:
        return
    own = {_hierarchy(group): group for group in _own(first_process())}
    pids = {proc.number_inside(pid): pid for group in own.values() for pid in cgroup.pids(group)}
    try:
        for one in listed:
            place = own[one.hierarchy] / one.path
            place.mkdir(exist_ok=True)
            cgroup.fill(place)
            for pid in filter(None, map(pids.get, one.processes)):
                with contextlib.suppress(ProcessLookupError):  # it runs, and may have ended
                    cgroup.put(pid, place)
        for one in listed:  # when none is in a group that hands controllers down
            _set(own[one.hierarchy] / one.path, one.settings)
    except (OSError, LookupError) as failure:
        raise AgentError(
            f"a control group that the container has made can't be made again: {failure}",
            "restore",
        ) from failure


def _own(first: int) -> Iterator[Path]:
    """The container's own groups."""
    for controllers, path in cgroup.paths(first).items():
        if (own := cgroup.own(path)) is not None:
            yield from _places(controllers, own.lstrip("/"))


def _places(controllers: str, path: str) -> Iterator[Path]:
    if not cgroup.is_first_version():
        yield cgroup.ROOT / path
    elif controllers:
        for name in (controllers, controllers.removeprefix("name=")):
            if (cgroup.ROOT / name / path).is_dir():
                yield cgroup.ROOT / name / path
                return


def _hierarchy(group: Path) -> str:
    return group.relative_to(cgroup.ROOT).parts[0] if cgroup.is_first_version() else ""


def _inside(group: Path) -> Iterator[Inner]:
    if group.stat().st_nlink == 2:  # no directory in it, as nearly always
        return
    hierarchy = _hierarchy(group)
    for place, names, _ in os.walk(group):
        names.sort()
        here = Path(place)
        if here == group:
            handed_down = _text(here / CONTROLLERS)
            yield Inner(hierarchy, "", {CONTROLLERS: handed_down} if handed_down else {}, [])
            continue
        settings = {name: text for name in (*SETTINGS, CONTROLLERS) if (text := _text(here / name))}
        pids = [int(line) for line in (here / cgroup.PROCESSES).read_text().split()]
        yield Inner(
            hierarchy, str(here.relative_to(group)), settings, [proc.number_inside(pid) for pid in pids]
        )


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # not of this version or this kernel, or only to be written
        return ""


def _set(place: Path, settings: dict[str, str]) -> None:
    for name in (*SETTINGS, CONTROLLERS):
        wanted = settings.get(name, "")
        if name == CONTROLLERS:
            wanted = " ".join(f"+{each}" for each in wanted.split())
        if not wanted or not (place / name).exists() or _text(place / name) == settings[name]:
            continue
        for line in wanted.splitlines():
            (place / name).write_text(line)


def _parsed(data: bytes) -> list[Inner]:
    listed = parse(data).get("groups")
    if not isinstance(listed, list) or len(listed) > MOST:
        _wrong("it is no list")
    return [_inner(each) for each in listed]


def _inner(entry: Any) -> Inner:
    if not isinstance(entry, list) or len(entry) != 4:
        _wrong("an entry has not four parts")
    hierarchy, path, settings, processes = entry
    if not isinstance(hierarchy, str) or "/" in hierarchy or hierarchy == "..":
        _wrong("a hierarchy has no name")
    if not isinstance(path, str) or path.startswith("/") or ".." in PurePosixPath(path).parts or "\0" in path:
        _wrong("a path leads out")
    known = (*SETTINGS, CONTROLLERS)
    if not isinstance(settings, dict) or not all(
        name in known and isinstance(value, str) and len(value) < 4096 for name, value in settings.items()
    ):
        _wrong("a setting is not known")
    if not isinstance(processes, list) or not all(
        type(each) is int and 0 < each < 1 << 22 for each in processes
    ):
        _wrong("a process has no number")
    return Inner(hierarchy, path, settings, processes)


def _wrong(why: str) -> NoReturn:
    raise Misunderstood(f"the other side sent a list of control groups that can't be understood: {why}")
