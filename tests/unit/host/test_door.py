"""The door between CRIU's restore and its daemon for pages: all passes, the last word late."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from sealift.host.agent.memory.door import FINISHED, SOCKET, Door


class Through:
    """A restore's end and a daemon's, and a door between them that waits for `calm`."""

    def __init__(self, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came, self.calm = threading.Event(), threading.Event()
        (work / "daemon").mkdir(parents=True)
        door = Door(work)
        monkeypatch.chdir(work)  # as CRIU does: the whole name may be too long for an address
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"daemon/{SOCKET}")
        listener.listen(1)
        self.keeper = threading.Thread(
            target=door.pass_on, args=(work / "daemon", self.came.set, self.calm.wait), daemon=True
        )
        self.keeper.start()
        self.restore = socket.socket(socket.AF_UNIX)
        self.restore.connect(SOCKET)
        self.daemon, _ = listener.accept()
        self.daemon.settimeout(5)
        listener.close()

    def say(self, number: int) -> None:
        self.restore.sendall(number.to_bytes(4, "little", signed=True))

    def hear(self) -> int:
        return int.from_bytes(self.daemon.recv(4), "little", signed=True)

    def close(self) -> None:
        for end in (self.restore, self.daemon):
            end.close()


@pytest.fixture
def through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Through:
    return Through(tmp_path / ("restore-" + 80 * "a"), monkeypatch)


def test_descriptors_pass_and_the_last_word_waits(through: Through, tmp_path: Path) -> None:
    assert through.came.wait(5)
    for number in (17, -18, 19):  # all of it before the daemon reads any: messages lie side by side
        through.say(number)
        if number > 0:
            with (tmp_path / str(number)).open("w") as file:
                socket.send_fds(through.restore, [b"x"], [file.fileno()])
    through.say(FINISHED)
    names = []
    for number in (17, -18, 19):
        assert through.hear() == number
        if number > 0:
            _, (descriptor,), _, _ = socket.recv_fds(through.daemon, 1, 1)
            names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            os.close(descriptor)
    assert names == ["17", "19"]
    through.daemon.settimeout(0.2)
    with pytest.raises(TimeoutError):
        through.daemon.recv(4)
    through.restore.close()
    with pytest.raises(TimeoutError):
        through.daemon.recv(4)  # the connection stays: its end without the word is a failure to the daemon
    through.calm.set()
    assert through.hear() == FINISHED
    through.keeper.join(5)
    assert not through.keeper.is_alive()
    through.close()


def test_a_restore_that_fails_is_told_at_once(through: Through) -> None:
    through.say(17)
    through.restore.close()
    assert through.hear() == 17
    assert through.daemon.recv(4) == b""
    through.keeper.join(5)
    assert not through.keeper.is_alive()
    through.close()
