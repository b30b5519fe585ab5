"""What is watched is found again by path, whatever its name and number, and nobody is told of the search."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

import pytest

from sealift_agent import by_name, libc, proc, watched_paths
from sealift_agent.files import watches
from sealift_agent.files.watches import Found, Watched
from sealift_agent.protobuf import fields, written
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

ALL = 0xFFF
US = os.getpid()


class Watch:
    """This process's own inotify."""

    def __init__(self) -> None:
        self.handle = libc.call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)

    def add(self, path: Path, mask: int = ALL) -> None:
        libc.call("inotify_add_watch", self.handle, os.fsencode(path), ctypes.c_uint(mask))

    def told(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self.handle, 1 << 16)
        return b""


@pytest.fixture
def watch() -> Iterator[Watch]:
    found = Watch()
    yield found
    os.close(found.handle)


@pytest.fixture
def small_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that is searched is this folder, as if it were the only mount."""
    (tmp_path / "some" / "where").mkdir(parents=True)
    (tmp_path / "some" / "file").touch()
    number = tmp_path.stat().st_dev
    mount = proc.Mount(1, f"{os.major(number)}:{os.minor(number)}", "/", str(tmp_path), "tmpfs", {})
    monkeypatch.setattr(watches.proc, "mounts", lambda _: [mount])
    return tmp_path


def only(monkeypatch: pytest.MonkeyPatch, search: str) -> None:
    """One of the ways to search, alone."""
    for name in ("_by_handle", "_by_number", "_by_watching"):
        if name != search:
            monkeypatch.setattr(watches, name, lambda *_: [])


@pytest.mark.parametrize("search", ["_by_number", "_by_watching"])
@pytest.mark.parametrize("name", ["where", "with space", "with#mark", 'with"quote', "with\nline", ""])
def test_a_watched_file_is_found_and_who_watches_it_is_told_nothing(
    small_tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, search: str, name: str
) -> None:
    only(monkeypatch, search)
    place = small_tree / "some" / name if name else small_tree
    place.mkdir(exist_ok=True)
    watch.add(place)
    watch.add(small_tree / "some" / "file")
    found = watches.find(US, [US])
    assert {one.path for one in found.values()} == {str(place), str(small_tree / "some" / "file")}
    assert watches.missing(US, found) == []
    assert watch.told() == b""


def test_what_is_gone_is_not_found(small_tree: Path, watch: Watch) -> None:
    place = small_tree / "some" / "where"
    watch.add(place, 0x100)
    held = os.open(place, os.O_RDONLY)
    try:
        inode = place.stat().st_ino
        place.rmdir()
        found = watches.find(US, [US])
        assert found == {}
        assert watches.missing(US, found) == [f"inotify on inode {inode}"]
    finally:
        os.close(held)


def test_what_is_known_is_looked_for_only_if_it_has_moved(
    small_tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.add(small_tree / "some" / "where", 0x100)
    known = watches.find(US, [US])
    searched: list[object] = []
    search: Callable[..., object] = watches._by_number

    def counted(*given: object) -> object:
        searched.append(given)
        return search(*given)

    only(monkeypatch, "_by_number")
    monkeypatch.setattr(watches, "_by_number", counted)
    assert watches.find(US, [US], known) == known
    assert searched == []
    (small_tree / "some" / "where").rename(small_tree / "elsewhere")
    assert [one.path for one in watches.find(US, [US], known).values()] == [str(small_tree / "elsewhere")]


HANDLE = written(1, 8) + written(2, 1) + written(3, 7) + written(3, 0)
OLD = written(4, b"/memfd:sealift (deleted)") + written(5, 77)


def an_image(number: int, notifier: bytes) -> bytes:
    return by_name.image(
        bytes(by_name.HEAD_BYTES), [written(1, 8) + written(2, 5) + written(number, notifier)]
    )


def inotify(inode: int, device: int) -> bytes:
    watch = written(1, 5) + written(2, inode) + written(3, 256) + written(4, 0) + written(5, device)
    return written(1, 5) + written(2, 0) + written(5, watch + written(6, 3) + written(7, HANDLE + OLD))


def test_the_images_get_the_path_in_the_place_of_what_criu_wrote() -> None:
    files = watched_paths.with_paths(an_image(13, inotify(9, 4)), {Watched(4, 9): Found("/data/a b", (1, 2))})
    entry = next(entry for _, entry in by_name.entries(files))
    handle = by_name.part(by_name.part(by_name.part(entry, 13), 5), 7)
    assert handle == {1: 8, 2: 1, 3: 0, 4: b"/data/a b"}
    raw = by_name.part(by_name.part(entry, 13), 5)[7]
    assert isinstance(raw, bytes)
    assert [value for number, value in fields(raw) if number == 3] == [7, 0]


def test_a_mark_of_fanotify_gets_it_too_and_one_on_a_mount_needs_none() -> None:
    by_inode = written(6, 4) + written(7, written(1, 9) + written(2, HANDLE + OLD))
    by_mount = written(6, 4) + written(8, written(1, 3))
    image = an_image(14, written(6, written(1, 1) + by_inode) + written(6, written(1, 1) + by_mount))
    files = watched_paths.with_paths(image, {Watched(4, 9): Found("/data", (1, 2))})
    entry = next(entry for _, entry in by_name.entries(files))
    first, second = [value for number, value in fields(entry[14]) if number == 6]  # type: ignore[arg-type]
    assert b"/data" in first  # type: ignore[operator]
    assert second == written(1, 1) + by_mount


def test_a_file_without_a_path_is_named() -> None:
    with pytest.raises(AgentError, match="inode 9, which has no path"):
        watched_paths.with_paths(an_image(13, inotify(9, 4)), {})


@pytest.mark.root
def test_a_group_made_inside_is_not_there_yet_when_it_is_watched_again(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    own, inner, group = tmp_path / "events", tmp_path / "inner" / "events", tmp_path / "inner"
    for path in (own, inner):
        path.touch()
    mount = proc.Mount(1, "0:1", "/", str(tmp_path), "cgroup2", {})
    monkeypatch.setattr(watches.proc, "mounts", lambda _: [mount])
    for path in (own, inner, group):
        watch.add(path)
    marks = [mark.watched for mark in watches._marks(os.getpid())]
    found = {
        watched: Found(str(path), (0, 0)) for watched, path in zip(marks, (own, inner, group), strict=True)
    }
    said = watches.missing(os.getpid(), found)
    assert said == ["inotify on a control group that was made inside"] * 2
