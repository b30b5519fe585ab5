"""rsync's daemon: it listens itself, and what it has started for its connections ends with its migration."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sealift.host.agent import dumps
from sealift.host.agent.files.rsync import _listens

if TYPE_CHECKING:
    from pathlib import Path

SLEEPS = "import sys, time; print('up', flush=True); time.sleep(60)"


def test_a_port_that_somebody_was_quicker_to_take_is_not_the_daemon_s() -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE) as other:
        try:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
                assert _listens(os.getpid(), port)
                assert not _listens(other.pid, port)
            assert not _listens(os.getpid(), port)
        finally:
            other.kill()


@pytest.mark.root
def test_what_a_dead_daemon_has_left_for_silent_connections_ends_with_the_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumps, "DUMPS", tmp_path / "dumps")
    monkeypatch.setattr(dumps, "wipe", lambda _: None)
    directory = dumps.DUMPS / "one"
    directory.mkdir(parents=True)
    words = [f"--config={directory}/rsyncd.conf", f"--config={directory}2/rsyncd.conf"]
    left, others = [
        subprocess.Popen([sys.executable, "-c", SLEEPS, word], stdout=subprocess.PIPE) for word in words
    ]
    with left, others:
        for each in (left, others):
            assert each.stdout
            assert each.stdout.readline() == b"up\n"
        try:
            with dumps.abandoned("one"):
                pass
            assert left.wait(10) == -9
            assert others.poll() is None
        finally:
            left.kill()
            others.kill()
