"""Trees that change under rsync's hands: no reason to stop while the container runs, and what changed arrives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
import rsync_at_hand

from sealift_agent.criu import tree
from sealift_agent.files import rsync
from sealift_agent.files.daemon import Daemon
from sealift_agent.files.rsync import LAYER, Sender, View
from sealift_agent.wire import LOOPBACK, AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = rsync_at_hand.NEEDED
BIG = 4 << 20


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rsync_at_hand.provide(tmp_path, monkeypatch)


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    return here, there


@pytest.fixture
def daemon(tmp_path: Path, trees: tuple[Path, Path]) -> Iterator[Daemon]:
    (tmp_path / "migration").mkdir()
    running = Daemon(tmp_path / "migration", LOOPBACK, "secret", {LAYER: str(trees[1])})
    yield running
    running.process.send_signal(signal.SIGCONT)
    running.stop()


def sender(daemon: Daemon, here: Path, *, told: bool) -> Sender:
    view = (lambda: View(here, [])) if told else None
    own = here.parent / "sender"
    own.mkdir()
    return Sender(LOOPBACK, daemon.port, "secret", {LAYER: str(here)}, own, view=view)


@contextlib.contextmanager
def busy(*actions: Callable[[int], object]) -> Iterator[None]:
    """Each of the actions, again and again, for the length of a block."""
    over = threading.Event()

    def repeat(action: Callable[[int], object]) -> None:
        number = 0
        while not over.is_set():
            number += 1
            with contextlib.suppress(
                FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError
            ):
                action(number)

    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def contents(root: Path) -> dict[str, bytes | str | None]:
    """All that is in a tree, by its name."""
    found: dict[str, bytes | str | None] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


@pytest.mark.parametrize("told", [True, False])
def test_files_may_be_truncated_rotated_and_removed_while_they_are_sent(
    daemon: Daemon, trees: tuple[Path, Path], told: bool
) -> None:
    here, there = trees
    (here / "gone").write_text("in the first pass, and removed before the last")

    def rewrite(number: int) -> None:
        with (here / "big").open("wb") as file:
            for _ in range(4):
                file.write(bytes([number % 256]) * (BIG // 4))

    def rotate(number: int) -> None:
        (here / "log").write_bytes(b"x" * (number % 7) * 100_000)
        (here / "log").rename(here / "log.1")

    def folders(number: int) -> None:
        place = here / f"folder-{number % 5}"
        (place / "inner").mkdir(parents=True, exist_ok=True)
        (place / "inner/file").write_bytes(os.urandom(1000))
        os.link(place / "inner/file", place / f"other-{number}")
        shutil.rmtree(place)

    def change_kind(number: int) -> None:
        place = here / "changing"
        if number % 3 == 0:
            place.mkdir()
        elif number % 3 == 1:
            place.rmdir()
            place.symlink_to("big")
        else:
            place.unlink()

    sending = sender(daemon, here, told=told)
    with busy(rewrite, rotate, folders, change_kind):
        time.sleep(0.2)
        for _ in range(6):
            sending.live_pass()
        (here / "gone").unlink()
        sending.catch_up()
    sending.final_pass([])
    sending.close()
    assert contents(there) == contents(here)


def test_a_host_without_room_is_no_race(daemon: Daemon, trees: tuple[Path, Path]) -> None:
    here, there = trees
    daemon.stop()
    (here / "big").write_bytes(b"x" * BIG)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", there], check=True)
    try:
        (here.parent / "another").mkdir()
        again = Daemon(here.parent / "another", LOOPBACK, "secret", {LAYER: str(there)})
        sending = sender(again, here, told=False)
        with pytest.raises(AgentError, match="No space left on device"):
            sending.live_pass()
        again.stop()
    finally:
        subprocess.run(["umount", "--lazy", there], check=True)
    daemon.process = again.process


def test_a_peer_that_stands_still_is_given_up(
    daemon: Daemon, trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many names there are to tell it: more than a pipe holds."""
    before = {*tree(os.getpid())}
    here, _ = trees
    sending = sender(daemon, here, told=True)
    sending.live_pass()
    for number in range(400):
        (here / f"{number:0>250}").write_text("new")
    monkeypatch.setattr(rsync, "STANDSTILL_S", 2)
    served_by = time.monotonic() + 5
    while {*tree(os.getpid())} - before and time.monotonic() < served_by:
        time.sleep(
            0.01
        )  # a daemon that is stopped does not take back the child that has served the live pass
    daemon.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(AgentError, match="has stood still for 2 s"):
        sending.final_pass([])
    assert time.monotonic() - began < 10
    sending.close()
    assert {*tree(os.getpid())} - before <= {daemon.process.pid}
