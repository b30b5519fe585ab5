"""A CRIU that is started says that it listens, or has ended: whatever a child of it still holds."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from sealift_agent import criu

CHILD_HOLDS_ON = 'sleep 60 & echo $! >"$1"; '


@pytest.mark.parametrize(
    ("script", "ready"),
    [
        ("printf x >/proc/self/fd/$2; sleep 60", True),
        ("exit 1", False),
        (CHILD_HOLDS_ON + "exit 1", False),
        (CHILD_HOLDS_ON + "kill -9 $$", False),
    ],
)
def test_whether_it_listens_is_known_at_once(tmp_path: Path, script: str, ready: bool) -> None:
    read_end, write_end = os.pipe()
    words = ["sh", "-c", script, "sh", str(tmp_path / "child"), str(write_end)]
    started = time.monotonic()
    process = subprocess.Popen(words, text=True, pass_fds=[write_end], start_new_session=True)
    os.close(write_end)
    try:
        assert criu.is_ready(process, read_end) is ready
        assert time.monotonic() - started < 10
        if (tmp_path / "child").exists():
            child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
            while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
                assert time.monotonic() - started < 10, "it is left behind"
                time.sleep(0.01)
    finally:
        if ready:
            os.killpg(process.pid, 9)
        process.wait()
