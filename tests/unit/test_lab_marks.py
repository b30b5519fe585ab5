"""A lab knows its processes by more than a mark in their environment: root enters its hosts' namespaces, and kills."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from sealift.lab import namespaced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users and namespaces need root")

WAIT = "echo here; read -r _"
WAIT_IN = "import os, sys; os.chroot(sys.argv[1]); print('here', flush=True); sys.stdin.read()"
NEW_PIDS = ("unshare", "--pid", "--fork", "--kill-child")


@contextmanager
def marked(
    mark: Path, *before: str, host: str = "source", user: int = 0, root: Path | None = None
) -> Iterator[int]:
    """A process with a lab's mark for the length of the block; the pid of what was started first."""
    program = ["/bin/sh", "-c", WAIT] if root is None else [sys.executable, "-c", WAIT_IN, str(root)]
    words = [*before, "/usr/bin/env", f"{namespaced.MARK}={mark}", f"HOST={host}", *program]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=user, cwd="/"
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            yield process.pid
        finally:
            assert process.stdin is not None
            process.stdin.close()


def test_processes_beside_its_hosts_are_found(tmp_path: Path) -> None:
    with marked(tmp_path, host=namespaced.SWITCH) as pid:
        assert namespaced.marked_processes()[pid] == str(tmp_path)
        assert namespaced.switch_of(str(tmp_path)) == pid


@pytest.mark.parametrize("stranger", ["local user", "container"])
def test_a_stranger_with_its_mark_is_none_of_its(stranger: str, tmp_path: Path) -> None:
    user, root = (65534, None) if stranger == "local user" else (0, tmp_path)
    before = () if stranger == "local user" else NEW_PIDS
    with marked(tmp_path, *before, user=user, root=root):
        assert str(tmp_path) not in namespaced.marked_processes().values()
        assert namespaced.first_process("source", str(tmp_path)) is None
    with (
        marked(tmp_path, *before, user=user, root=root, host=namespaced.SWITCH),
        pytest.raises(StopIteration),
    ):
        namespaced.switch_of(str(tmp_path))


def test_who_is_not_in_a_hosts_control_groups_is_not_that_host(tmp_path: Path) -> None:
    """Commands are run as root in the namespaces of a host's first process: it has to be the one."""
    with marked(tmp_path, *NEW_PIDS):
        assert namespaced.first_process("source", str(tmp_path)) is None
