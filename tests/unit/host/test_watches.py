"""What is watched and has no handle is looked for by device and inode, and CRIU is told where it is."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest

from sealift_agent import proc
from sealift_agent.files import watches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CREATE = 0x100


@pytest.fixture
def watch():
    """Watch a path by this process's own inotify."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_CLOEXEC)
    assert handle >= 0

    def add(path: Path) -> None:
        assert libc.inotify_add_watch(handle, os.fsencode(path), CREATE) >= 0

    yield add
    os.close(handle)


@pytest.fixture
def without_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on overlayfs."""
    monkeypatch.setattr(watches, "_opens", lambda *_: False)
    monkeypatch.setattr(watches, "_lies_in_a_hint", lambda *_: False)


@pytest.mark.usefixtures("without_handles")
def test_criu_is_told_where_a_watched_directory_is(tmp_path: Path, watch: Callable[[Path], None]) -> None:
    deep = tmp_path / "some" / "where"
    deep.mkdir(parents=True)
    watch(deep)
    assert watches.unresolvable(os.getpid()) == []
    assert watches.settings([os.getpid()]) == f"irmap-scan-path {deep}\n"


@pytest.mark.root
def test_a_watch_on_a_group_made_inside_is_not_resolved(
    tmp_path: Path, watch: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "events").touch()
    (tmp_path / "inner" / "events").touch()
    mount = proc.Mount(1, "0:1", "/", str(tmp_path), "cgroup2", {})
    monkeypatch.setattr(watches.proc, "mounts", lambda _: [mount])
    watch(tmp_path / "events")
    assert watches._on_inner_groups(os.getpid()) == []
    watch(tmp_path / "inner" / "events")
    assert watches._on_inner_groups(os.getpid()) == ["inotify"]


@pytest.mark.usefixtures("without_handles")
@pytest.mark.parametrize("name", ["with space", "with#mark", 'with"quote', "with\nline"])
def test_a_path_that_criu_would_misread_is_not_told(
    tmp_path: Path, watch: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(watches, "SCANNED_AT_MOST", 100_000)
    (tmp_path / name).mkdir()
    watch(tmp_path / name)
    inode = (tmp_path / name).stat().st_ino
    assert watches.unresolvable(os.getpid()) == [f"inotify on inode {inode}"]
    assert watches.settings([os.getpid()]) == ""


@pytest.mark.usefixtures("without_handles")
def test_what_is_gone_is_not_found(
    tmp_path: Path, watch: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "SCANNED_AT_MOST", 100_000)
    (tmp_path / "gone").mkdir()
    watch(tmp_path / "gone")
    held = os.open(tmp_path / "gone", os.O_RDONLY)
    try:
        (tmp_path / "gone").rmdir()
        assert watches.settings([os.getpid()]) == ""
    finally:
        os.close(held)
