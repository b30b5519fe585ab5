"""rsync's daemon: it listens itself, and what it has started for its connections ends with its migration."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sealift_agent import dumps
from sealift_agent.files.daemon import _listens

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
    program = shutil.copy(sys.executable, tmp_path / "rsync")  # by its name; what rsync's own do, others test
    home = {**os.environ, "PYTHONHOME": sys.base_prefix}
    left, others = [
        subprocess.Popen([program, "-c", SLEEPS, word], stdout=subprocess.PIPE, env=home) for word in words
    ]
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPS, words[0]], stdout=subprocess.PIPE)
    with left, others, stranger:
        for each in (left, others, stranger):
            assert each.stdout
            assert each.stdout.readline() == b"up\n"
        try:
            with dumps.abandoned("one", "rolled back"):
                pass
            assert left.wait(10) == -9
            assert others.poll() is None
            assert stranger.poll() is None, "a command line makes nobody a daemon of ours"
        finally:
            for each in (left, others, stranger):
                each.kill()
