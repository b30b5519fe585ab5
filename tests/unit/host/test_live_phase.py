"""Before the freeze: source and destination connect, and whatever phase fails, nothing of it stays."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from parties import Told

from sealift_agent import criu, dumps, volume_marks
from sealift_agent.destination import Destination
from sealift_agent.destination import live as receiving
from sealift_agent.memory import pipes
from sealift_agent.protocol import OpenSource, Peer, Prepare
from sealift_agent.source import Source
from sealift_agent.source import live as sending
from sealift_agent.wire import LOOPBACK, AgentError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What has been put away. rsync, the tmpfs of the images and Docker are played."""
    done: list[str] = []

    class Daemon:
        port = 9

        def __init__(self, *_: Any) -> None: ...

        def stop(self) -> None:
            done.append("daemon")

    class Sender:
        def __init__(self, *_: Any) -> None: ...

        def live_pass(self) -> int:
            return 5

        def close(self) -> None:
            done.append("sender")

    def make(migration: str) -> tuple[Path, int]:
        place = tmp_path / f"images-{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        return place, os.open(place, os.O_RDONLY)

    def wipe(directory: Path, lock: int) -> None:
        os.close(lock)
        done.append(directory.name)

    monkeypatch.setattr(receiving, "Daemon", Daemon)
    monkeypatch.setattr(sending, "Sender", Sender)
    monkeypatch.setattr(dumps, "make", make)
    monkeypatch.setattr(dumps, "wipe", wipe)
    monkeypatch.setattr(pipes, "put_back", lambda _: None)
    monkeypatch.setattr(criu, "descriptors", lambda _: ["pipe:[1]"])
    monkeypatch.setattr(volume_marks, "MARKS", tmp_path / "marks")
    return done


def opened(peer: Peer) -> OpenSource:
    return OpenSource("m", "c", peer, {"layer": "/"}, None)


def test_two_hosts_connect_and_leave_nothing_once_they_are_closed(ended: list[str]) -> None:
    there, here = Destination(Told()), Source(Told())
    peer = there.prepare(Prepare("m", LOOPBACK, {"layer": "/"}))
    accepting = threading.Thread(target=there.accept)
    accepting.start()
    assert here.open(opened(peer)) == ["pipe:[1]"]
    accepting.join()
    assert here.live.live_pass() == 5
    assert not there.live.link.is_lost()
    with pytest.raises(AgentError, match="no answer from"):
        here.open(opened(Peer(LOOPBACK, 1, "t", "p", 1)))
    assert ended == ["sender", "images-2"], "what has failed, and not what there was before"
    assert here.live.live_pass() == 5
    for _ in range(2):
        here.close()
        there.close()
    assert ended[2:] == ["sender", "images-1", "daemon", "images-0"]


@pytest.mark.parametrize("phase", ["live", "armed"])
def test_what_a_phase_makes_is_not_there_before_it(phase: str) -> None:
    for role in (Source(Told()), Destination(Told())):
        with pytest.raises(AgentError):
            getattr(role, phase)
