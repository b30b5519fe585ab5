"""The CRIU that waits (`armed/criu`): which of runc's calls does, and that none slips through."""

from __future__ import annotations

import os
import subprocess
from importlib import resources
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHIMS = str(resources.files("sealift.machine") / "files/usr/libexec/sealift/armed")
WAITS = 2

WITHOUT_DEVICES = (
    *("unshare", "--mount", "sh", "-ec"),
    'mount --bind /dev/null /dev/null; mount -o remount,bind,nodev /dev/null; exec "$@"',
    "sh",
)


class Runc:
    """Calls what it finds in PATH as `criu`: the script, and behind it one that says what it was called with."""

    def __init__(self, directory: Path) -> None:
        self.armed = directory / "armed"
        self.armed.mkdir()
        os.mkfifo(self.armed / "go")
        self.go = os.open(self.armed / "go", os.O_RDWR | os.O_NONBLOCK)
        (directory / "bin").mkdir()
        (directory / "bin/criu").write_text('#!/bin/sh\necho "criu $*"\n')
        (directory / "bin/criu").chmod(0o755)
        path = f"{SHIMS}:{directory / 'bin'}:{os.environ['PATH']}"
        self.calling: list[subprocess.Popen[str]] = []
        self._env = {"PATH": path, "SEALIFT_ARMED": str(self.armed), "SEALIFT_CALL": str(WAITS)}

    def call(self, *before: str) -> subprocess.Popen[str]:
        command = [*before, f"{SHIMS}/criu", "swrk", "3"]
        self.calling.append(subprocess.Popen(command, env=self._env, stdout=subprocess.PIPE, text=True))
        return self.calling[-1]

    def said(self, calling: subprocess.Popen[str]) -> tuple[int, str]:
        output, _ = calling.communicate(timeout=10)
        return calling.returncode, output


@pytest.fixture
def runc(tmp_path: Path) -> Iterator[Runc]:
    made = Runc(tmp_path)
    yield made
    for calling in made.calling:
        calling.kill()
        calling.communicate()


def test_the_call_that_works_waits_for_its_word(runc: Runc) -> None:
    assert runc.said(runc.call()) == (0, "criu swrk 3\n")
    waiting = runc.call()
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    assert (runc.armed / "ready").exists()
    os.write(runc.go, b"go\n")
    assert runc.said(waiting) == (0, "criu swrk 3\n")


def test_who_holds_the_pipe_dies_and_nothing_is_done(runc: Runc) -> None:
    runc.said(runc.call())
    waiting = runc.call()
    while not (runc.armed / "ready").exists():
        assert waiting.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.2)
    os.close(runc.go)
    assert runc.said(waiting) == (1, "")


def test_no_call_comes_after_the_one_that_works(runc: Runc) -> None:
    (runc.armed / "call-1").touch()
    (runc.armed / "call-2").touch()
    assert runc.said(runc.call()) == (1, "")
    assert "Error: runc calls CRIU again" in (runc.armed / "complaints").read_text()


def test_a_call_that_can_t_be_counted_does_not_go_ahead(runc: Runc) -> None:
    (runc.armed / "call-1").symlink_to(runc.armed / "nowhere/call-1")  # not there, and can't be made
    assert runc.said(runc.call())[0] != 0


@pytest.mark.root
def test_a_control_group_that_allows_no_device_yet_changes_no_number(runc: Runc) -> None:
    (runc.armed / "call-1").touch()
    waiting = runc.call(*WITHOUT_DEVICES)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    assert sorted(path.name for path in runc.armed.iterdir()) == ["call-1", "call-2", "go", "ready"]
    os.write(runc.go, b"go\n")
    assert runc.said(waiting) == (0, "criu swrk 3\n")
