"""A control group that goes away while it is thawed or looked at needs nothing any more; other errors are said."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sealift_agent import cgroup
from sealift_agent.criu import tree
from sealift_agent.wire import AgentError


@pytest.fixture
def group(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.procs").write_text("1\n2\n")
    (tmp_path / "cgroup.freeze").write_text("1")
    return tmp_path


def failing(number: int):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "as the kernel says it")

    return fail


def test_a_group_is_read_and_thawed(group: Path) -> None:
    assert cgroup.pids(group) == [1, 2]
    cgroup.thaw(group)
    assert (group / "cgroup.freeze").read_text() == "0"


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOENT])
def test_one_that_goes_meanwhile_is_no_failure(
    group: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(Path, "write_text", failing(number))
    monkeypatch.setattr(Path, "read_text", failing(number))
    cgroup.thaw(group)
    assert cgroup.pids(group) == []


def test_what_else_goes_wrong_is_said(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        cgroup.thaw(group)


STARTS = """
import os, sys
if not os.fork():
    open_it = [(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)]
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=open_it), 0)
    os._exit(0)
os.wait()
"""


def test_nothing_is_frozen_while_a_process_is_starting_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its child has its memory until it becomes another program, here as long as nobody opens a pipe."""
    group, pipe = tmp_path / "group", tmp_path / "pipe"
    group.mkdir()
    os.mkfifo(pipe)
    monkeypatch.setattr(cgroup, "FREEZE_TIMEOUT_S", 0.2)
    (group / "freezer.state").write_text("THAWED")
    with subprocess.Popen([sys.executable, "-c", STARTS, str(pipe)]) as first:
        while len(tree(first.pid)) < 3:
            time.sleep(0.01)
        listed = "".join(f"{pid}\n" for pid in tree(first.pid))
        (group / "cgroup.procs").write_text(listed)
        (group / "tasks").write_text(listed)
        with pytest.raises(AgentError, match="is starting another"):
            cgroup.freeze(group)
        assert (group / "freezer.state").read_text() == "THAWED"
        opened = os.open(pipe, os.O_RDWR)
        cgroup.freeze(group)
        assert (group / "freezer.state").read_text() == "FROZEN"
        os.close(opened)
