"""A control group that goes away while it is thawed or looked at needs nothing any more; other errors are said."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift_agent import cgroup
from sealift_agent.criu import tree
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        until = time.monotonic() + 30
        while not cgroup._is_starting_another(group):  # its child is there before it waits for it
            assert time.monotonic() < until
            time.sleep(0.01)
        try:
            with pytest.raises(AgentError, match="is starting another"):
                cgroup.freeze(group)
            assert (group / "freezer.state").read_text() == "THAWED"
        finally:
            opened = os.open(pipe, os.O_RDWR)  # without it the processes would never end
        cgroup.freeze(group)
        assert (group / "freezer.state").read_text() == "FROZEN"
        os.close(opened)


STARTS_MANY = """
import os, threading, time
def churn():
    while True:
        child = os.posix_spawn("/bin/true", ["true"], {})
        time.sleep(0.001)
        os.waitpid(child, 0)
for _ in range(5):
    threading.Thread(target=churn, daemon=True).start()
churn()
"""


@pytest.fixture
def freezer() -> Iterator[Path]:
    """A real group of version 1."""
    top = cgroup.ROOT / "freezer"
    if os.geteuid() != 0 or not (top / "tasks").exists():
        pytest.skip("this needs root and a freezer of control groups version 1")
    group = top / f"sealift-test-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        cgroup.thaw(group)
        cgroup.kill_frozen(group)
        until = time.monotonic() + 10
        while (group / "cgroup.procs").read_text() and time.monotonic() < until:
            time.sleep(0.01)
        group.rmdir()


def test_a_thread_that_was_about_to_wait_for_its_new_process_is_frozen(freezer: Path) -> None:
    """Of 900 freezes of such a program 58 did not come to an end when the kernel was asked once only."""
    with subprocess.Popen([sys.executable, "-c", STARTS_MANY]) as busy:
        try:
            (freezer / "cgroup.procs").write_text(str(busy.pid))
            time.sleep(0.5)
            for _ in range(200):
                cgroup.freeze(freezer)
                assert cgroup.is_frozen(freezer)
                cgroup.thaw(freezer)
                time.sleep(0.003)
        finally:
            busy.kill()


def test_groups_of_a_bundle_are_made_below_each_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    for controller in ("memory", "cpuset"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "tasks").touch()
    (tmp_path / "both").symlink_to("memory")
    found = cgroup.of_bundle("/docker/box")
    assert sorted(found) == [tmp_path / "cpuset/docker/box", tmp_path / "memory/docker/box"]
    assert all(group.is_dir() for group in found)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/docker/box", "docker/box"),
        ("system.slice:docker:box", "system.slice/docker-box.scope"),
        (":docker:box", "system.slice/docker-box.scope"),
        ("a-b.slice:docker:box", "a.slice/a-b.slice/docker-box.scope"),
        ("-.slice:docker:box", "docker-box.scope"),
    ],
)
def test_a_bundle_s_group_is_where_runc_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, group: str
) -> None:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    (tmp_path / "cgroup.controllers").touch()
    assert cgroup.of_bundle(path) == [tmp_path / group]
    assert (tmp_path / group).is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
def test_a_process_can_join_the_groups_that_were_made(tmp_path: Path) -> None:
    path = f"/sealift-test-{os.getpid()}/box"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        groups = cgroup.of_bundle(path)
        try:
            for group in groups:
                (group / cgroup.PROCESSES).write_text(str(process.pid))
            assert all(cgroup.pids(group) == [process.pid] for group in groups)
        finally:
            process.kill()
            process.wait()
            for group in groups:
                group.rmdir()
                group.parent.rmdir()
