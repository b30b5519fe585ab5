"""A single file that is bind-mounted travels as a tree with this file alone, and is written in its place."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import rsync_at_hand

from sealift_agent.files import opened
from sealift_agent.files.changes import TICK_NS
from sealift_agent.files.daemon import Daemon
from sealift_agent.files.enclosure import INSIDE
from sealift_agent.files.rsync import LAYER, Sender, View

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = rsync_at_hand.NEEDED


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rsync_at_hand.provide(tmp_path, monkeypatch)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Path, Path, Sender]]:
    """A file here, the file there, and a sender that is connected with a receiver. Beside both lie others."""
    here, there = tmp_path / "here/app.conf", tmp_path / "there/other.conf"
    for path in (here, there):
        path.parent.mkdir()
        (path.parent / "beside").write_text("beside")
    here.write_text("one")
    there.write_text("old, and longer")
    for name in ("layer", "copy", "sending", "receiving"):
        (tmp_path / name).mkdir()
    receiver = Daemon(
        tmp_path / "receiving", "127.0.0.1", "secret", {LAYER: str(tmp_path / "copy"), "file-0": str(there)}
    )
    trees = {LAYER: str(tmp_path / "layer"), "file-0": str(here)}
    sender = Sender(
        "127.0.0.1",
        receiver.port,
        "secret",
        trees,
        tmp_path / "sending",
        view=lambda: View(tmp_path / "layer", [os.getpid()]),
    )
    try:
        yield here, there, sender
    finally:
        sender.close()
        receiver.stop()


def test_the_file_is_written_where_it_is_and_its_neighbours_stay(ends: tuple[Path, Path, Sender]) -> None:
    here, there, sender = ends
    here.chmod(0o640)
    inode = there.stat().st_ino
    sender.live_pass()
    assert there.read_text() == "one"
    assert (there.stat().st_ino, there.stat().st_mode & 0o777) == (inode, 0o640)
    assert sorted(path.name for path in there.parent.iterdir()) == ["beside", "other.conf"]


def test_a_change_is_told_by_the_kernel_and_sent_by_name(ends: tuple[Path, Path, Sender]) -> None:
    here, there, sender = ends
    sender.live_pass()
    assert sender.final_pass([]) == 0
    here.write_text("two, in place")
    assert sender._enclosure.run(sender._changed) == {"file-0": {INSIDE}}
    assert sender.final_pass([]) > 0
    assert there.read_text() == "two, in place"


def test_a_file_that_is_written_while_it_is_open_is_found(
    ends: tuple[Path, Path, Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, sender = ends
    monkeypatch.setattr(opened, "mounts", lambda _: {"/": {"/"}})
    with here.open("r+") as file:
        time.sleep(TICK_NS * 2 / 1e9)
        sender.live_pass()
        file.write("ONE")
        file.flush()
        assert sender.final_pass([os.getpid()]) > 0
    assert there.read_text() == "ONE"


def test_the_receiver_makes_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "receiving").mkdir()
    wanted = tmp_path / "deep/new.conf"
    receiver = Daemon(tmp_path / "receiving", "127.0.0.1", "secret", {"file-0": str(wanted)})
    try:
        assert wanted.read_text() == ""
    finally:
        receiver.stop()
