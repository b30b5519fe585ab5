"""Where a restore hands over the memory of what it restores."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from sealift_agent.memory.lazy_socket import FINISHED, SOCKET, LazyPagesSocket
from sealift_agent.wire import AgentError


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose whole name is too long for an address, as CRIU has it: it works in there."""
    made = tmp_path / ("restore-" + 80 * "a")
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def connected(work: Path) -> tuple[LazyPagesSocket, socket.socket]:
    handover = LazyPagesSocket(work)
    restore = socket.socket(socket.AF_UNIX)
    restore.connect(SOCKET)
    assert not handover.came
    handover.accept()
    assert handover.came
    return handover, restore


def say(restore: socket.socket, number: int) -> None:
    restore.sendall(number.to_bytes(4, "little", signed=True))


def test_all_that_is_said_at_once_is_taken_one_by_one(work: Path) -> None:
    handover, restore = connected(work)
    for number in (17, -18, 19):
        say(restore, number)
        if number > 0:
            with (work / str(number)).open("w") as file:
                socket.send_fds(restore, [b"x"], [file.fileno()])
    say(restore, FINISHED)
    for number in (17, -18, 19):
        handed = handover.take()
        assert not handover.finished
        if number < 0:
            assert handed is None
            continue
        assert handed is not None
        assert handed.process == number
        assert Path(f"/proc/self/fd/{handed.descriptor}").readlink().name == str(number)
        os.close(handed.descriptor)
    assert handover.take() is None
    assert handover.finished
    restore.close()
    handover.close()


def test_what_comes_after_a_process_without_memory_is_not_waited_for(work: Path) -> None:
    """Another process may need a page before the restore says anything more."""
    handover, restore = connected(work)
    say(restore, -17)
    assert handover.take() is None
    assert not handover.finished
    restore.close()
    handover.close()


def test_a_restore_that_ends_without_a_word_has_failed(work: Path) -> None:
    handover, restore = connected(work)
    say(restore, -17)
    assert handover.take() is None
    threading.Timer(0.1, restore.close).start()
    with pytest.raises(AgentError, match="ended before all was restored"):
        handover.take()
    handover.close()
