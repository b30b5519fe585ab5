"""Whose the content of a named volume is: a host keeps a mark of each that came or went with a migration.

A volume stays behind where its container moves away from, as it does after `docker rm`, and is in the way when the
container comes home. What was left behind by the same container, however many hosts ago, and was not touched since may
be overwritten. What else has content is somebody's: nothing of a migration writes to it.

A mark (a file of `MARKS`, JSON) holds the volume's `identity`, its `lineage`, which goes with the content from host to
host, the `migration` that wrote it last, and its `state`: `here` with a container, `left` at `since_ns`, or `taken`
for a migration that is not decided, with what it was `before`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import docker_api, durable
from .files import beneath, silent
from .files.walk import stamps
from .protocol import VolumeFound
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MARKS = Path("/var/lib/sealift/volumes")
"""Beside Docker's directory, on the same disk: a host that was started again still has both."""

HERE, LEFT, TAKEN = "here", "left", "taken"
NEW, EMPTY, OTHER = "new", "empty", "other"


def describe(names: Sequence[str]) -> dict[str, VolumeFound | None]:
    """What is to be known of volumes before a migration; None for one that is not there.

    `driver` and `options` as Docker has them; `content`: empty, left, taken, here or other; `lineage`, or None.
    """
    return {name: _describe(described) if (described := described_volume(name)) else None for name in names}


def _describe(described: dict[str, Any]) -> VolumeFound:
    place, mark = Path(described["Mountpoint"]), _mark(described)
    return VolumeFound(
        driver=described["Driver"],
        options=described["Options"] or {},
        content=_content(place, mark),
        lineage=mark.get("lineage"),
    )


def _content(place: Path, mark: Mapping[str, Any]) -> str:
    """What is in a volume, as far as its mark can tell: a state that still holds, `EMPTY` or `OTHER`."""
    try:
        with silent.tree(str(place)) as top:
            if beneath.is_empty(top):
                return EMPTY
            if mark.get("state") == LEFT and any(
                seen.ctime_ns > mark["since_ns"] for seen in stamps(Path(f"/proc/self/fd/{top}")).values()
            ):
                return OTHER
    except OSError:  # a driver's, which is mounted only while it is used
        return OTHER
    return str(mark.get("state", OTHER))


def keep(migration: str, names: Sequence[str]) -> dict[str, str]:
    """At the source, whose container is about to go: mark its volumes. Returns the lineage of each."""
    lineages = {}
    for name in names:
        described = _there(name)
        lineages[name] = _mark(described).get("lineage") or f"{migration}/{name}"
        _write(described, migration, lineages[name], HERE)
    return lineages


def leave(migration: str) -> None:
    """At the source, whose copy is removed: what has stayed is left behind."""
    for mark, described in _of(migration, HERE):
        _write(described, migration, mark["lineage"], LEFT, since_ns=time.time_ns())


def take(migration: str, lineages: Mapping[str, str], created: Sequence[str]) -> None:
    """At the destination, before the first byte comes: volumes are this migration's until it is decided.

    AgentError for one with content that was not left behind by the same container.
    """
    for name, lineage in lineages.items():
        described = _there(name)
        mark = _mark(described)
        before = NEW if name in created else _content(Path(described["Mountpoint"]), mark)
        ours = mark.get("lineage") == lineage
        if ours and mark["state"] == TAKEN:
            before = TAKEN  # two containers of a group share it
        if before not in {NEW, EMPTY} and not (ours and before in {LEFT, TAKEN}):
            raise AgentError(f"the volume {name!r} has content that this container has not left here", "sync")
        root = Path(described["Mountpoint"]).stat()
        owner = {"mode": root.st_mode & 0o7777, "uid": root.st_uid, "gid": root.st_gid}
        _write(described, migration, lineage, TAKEN, before=before, owner=owner)


def arrive(migration: str) -> None:
    """At the destination, once the container is there for good."""
    for mark, described in _of(migration, TAKEN):
        _write(described, migration, mark["lineage"], HERE)


def give_back(migration: str) -> None:
    """At the destination, where nothing came of it: what was empty is empty again, what was left behind is so still."""
    for mark, described in _of(migration, TAKEN):
        place = Path(described["Mountpoint"])
        if mark["before"] == LEFT:
            _write(described, migration, mark["lineage"], LEFT, since_ns=time.time_ns())
            continue
        if mark["before"] == EMPTY and not _users(described["Name"]):
            try:
                _empty(place, **mark["owner"])
            except OSError as refused:
                raise AgentError(
                    f"the volume {described['Name']!r} can't be emptied again: {refused}"
                ) from refused
        _path(described["Name"]).unlink(missing_ok=True)


def _empty(place: Path, mode: int, uid: int, gid: int) -> None:
    for entry in list(os.scandir(place)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()
    os.chown(place, uid, gid)
    place.chmod(mode)


def _of(migration: str, state: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The marks of this state that a migration wrote, with their volumes. Where the volume is gone, so is its mark."""
    for path in sorted(MARKS.glob("*")):
        mark = _read(path)
        if (mark.get("migration"), mark.get("state")) != (migration, state):
            continue
        described = described_volume(path.name)
        if described is None or mark["identity"] != _identity(described):
            path.unlink(missing_ok=True)
        else:
            yield mark, described


def described_volume(name: str) -> dict[str, Any] | None:
    """Docker's description of a volume; None if it is not there."""
    try:
        described: dict[str, Any] = docker_api.call("GET", f"/volumes/{name}")
    except docker_api.NotThere:
        return None
    return described


def _users(name: str) -> list[Any]:
    filters = quote(json.dumps({"volume": [name]}))
    users: list[Any] = docker_api.call("GET", f"/containers/json?all=1&filters={filters}")
    return users


def _there(name: str) -> dict[str, Any]:
    described = described_volume(name)
    if described is None:
        raise AgentError(f"the volume {name!r} is gone", "sync")
    return described


def _identity(described: Mapping[str, Any]) -> list[int]:
    """Of the volume itself, not of its name: when it was made, in nanoseconds, and its directory's inode."""
    place = Path(described["Mountpoint"])
    return [place.parent.stat().st_ctime_ns, place.stat().st_ino]


def _mark(described: Mapping[str, Any]) -> dict[str, Any]:
    """The volume's mark; nothing, if there is none or it is another volume's, of the same name."""
    mark = _read(_path(described["Name"]))
    with contextlib.suppress(OSError):  # a driver's, whose directory is not there
        if mark.get("identity") == _identity(described):
            return mark
    return {}


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        mark: dict[str, Any] = json.loads(path.read_bytes())
        return mark
    return {}


def _write(described: Mapping[str, Any], migration: str, lineage: str, state: str, **facts: Any) -> None:
    """Write a mark, and return once it is on the disk."""
    path = _path(described["Name"])
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = _identity(described)
    whole = {"identity": identity, "lineage": lineage, "migration": migration, "state": state, **facts}
    # No volume's name begins with a dot.
    durable.replace(path, json.dumps(whole), path.with_name(f".{path.name}"))


def _path(name: str) -> Path:
    return MARKS / name
