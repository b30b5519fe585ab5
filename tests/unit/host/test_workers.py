"""Who works on a migration's images is not decided by words that anybody can write into a command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from sealift_agent import dumps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users and namespaces need root")

NOBODY = 65534
WAIT = "echo here; read -r _"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A migration's, and programs that others may run."""
    base = next(each for each in tmp_path.parents if each.name.startswith("pytest-of-"))
    for parent in (tmp_path, *tmp_path.parents):
        if parent.is_relative_to(base):
            parent.chmod(0o755)
    for name in ("runc", "tail"):
        shutil.copy("/bin/sh", tmp_path / name)
    (tmp_path / "dumps").mkdir()
    return tmp_path / "dumps"


@contextmanager
def process(program: Path, directory: Path, *before: str, user: int = 0) -> Iterator[int]:
    """A process with the words of a dump's runc that runs for the length of the block; its pid."""
    words = [*before, str(program), "-c", WAIT, "checkpoint", "--image-path", str(directory / "final")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=user) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"here\n"
            yield running.pid
        finally:
            assert running.stdin is not None
            running.stdin.close()


def test_runc_and_criu_of_this_host_are_found(directory: Path) -> None:
    criu = directory.parent / "criu"
    shutil.copy("/bin/sh", criu)
    with process(directory.parent / "runc", directory) as dump, process(criu, directory) as pages:
        assert set(dumps.workers(directory)) == {dump, pages}
        assert dumps.workers(directory.with_name("dump")) == []
    assert dumps.workers(directory) == []


@pytest.mark.parametrize(
    "stranger", ["local user", "container", "container that sees all processes", "root's tail"]
)
def test_strangers_are_neither_waited_for_nor_killed(stranger: str, directory: Path) -> None:
    before: tuple[str, ...] = ()
    user, program = 0, directory.parent / "runc"
    if stranger == "local user":
        user = NOBODY
    elif stranger == "container":
        before = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    elif stranger == "container that sees all processes":
        before = ("unshare", "--mount")
    else:
        program = directory.parent / "tail"
    with ExitStack() as stack:
        pid = stack.enter_context(process(program, directory, *before, user=user))
        assert dumps.workers(directory) == []
        dumps.kill_workers(directory)
        os.kill(pid, 0)
        assert b"State:\tZ" not in (dumps.Path(f"/proc/{pid}/status")).read_bytes()


def test_a_worker_is_killed_by_what_it_is_not_by_its_number(directory: Path) -> None:
    program = directory.parent / "runc"
    words = [str(program), "-c", WAIT, "checkpoint", "--image-path", str(directory / "final")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        dumps.kill_workers(directory)
        assert worker.wait(5) == -signal.SIGKILL
