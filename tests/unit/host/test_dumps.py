"""The tmpfs that images rest on: there as long as any migration needs it, gone after the last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from sealift_agent import dumps
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

TIMES = 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    monkeypatch.setattr(dumps, "DUMPS", tmp_path / "dumps")
    return tmp_path / "dumps"


def test_it_is_gone_with_the_last_migration(place: Path) -> None:
    first, second = dumps.make("first"), dumps.make("second")
    dumps.wipe(*first)
    assert os.path.ismount(place)
    dumps.wipe(*second)
    assert not os.path.ismount(place)


def test_no_migration_loses_it_to_another_that_ends(place: Path) -> None:
    lost: list[Exception] = []

    def come_and_go(name: str) -> None:
        try:
            for number in range(TIMES):
                directory, lock = dumps.make(f"{name}-{number}")
                (directory / "image").write_text("here")
                assert os.path.ismount(place)
                assert (directory / "image").read_text() == "here"
                dumps.wipe(directory, lock)
        except (OSError, AssertionError) as failure:
            lost.append(failure)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost
    assert not os.path.ismount(place)
    assert not any(place.iterdir())


HOLDS = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(handle, fcntl.LOCK_EX)
print("up", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("hangs", [True, False])
def test_an_agent_that_hangs_is_ended_and_one_that_comes_to_an_end_is_not(
    place: Path, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumps, "LET_GO_S", 0.2 if hangs else 30)
    directory, lock = dumps.make("one")
    os.close(lock)
    words = [sys.executable, "-c", HOLDS, str(directory), "60" if hangs else "0.3"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        agent.stdout.readline()
        if hangs:
            agent.send_signal(signal.SIGSTOP)
            with pytest.raises(AgentError, match="is at work here"), dumps.abandoned("one", "rolled back"):
                pass
            assert dumps.told(directory) == "rolled back"
        with dumps.abandoned("one", "rolled back", kill=True) as found:
            assert found == directory
        assert agent.wait() == (-signal.SIGKILL if hangs else 0)
    assert not directory.exists()
    assert not os.path.ismount(place)
