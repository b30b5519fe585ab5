"""Remove a lab, even if only a part of it came up or if it was killed while it came up."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed
from sealift.lab.layout import machines_dir
from sealift.lab.namespaced import cgroups, marked_processes
from sealift.lab.wiring import unwire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

END_TIMEOUT_S = 20


def remove(directory: Path) -> None:
    """End all processes of the lab in `directory` and remove its files. Raises CommandFailed if anything stays."""
    mark = str(directory)
    _end_processes(mark)
    unwire(mark)
    _until(lambda: not _remove_cgroups(mark), "control groups stay")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(machines_dir(directory), ignore_errors=True)
    with suppress(OSError):
        directory.parent.rmdir()  # fails while another lab has its directory there


def _end_processes(mark: str) -> None:
    thaw_all(mark)
    mine = [pid for pid, value in marked_processes().items() if value == mark]
    for pid in mine:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    thaw_all(mark)  # containers that were frozen meanwhile: on cgroup v1 frozen processes do not die
    _until(lambda: not any(_lives(pid, mark) for pid in mine), f"processes of the lab stay: {mine}")


def _lives(pid: int, mark: str) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return marked_processes().get(pid) == mark


def thaw_all(mark: str) -> None:
    """Thaw every frozen control group of the lab."""
    thaw("", mark)


def thaw(name: str, mark: str) -> None:
    """Thaw every frozen control group of one of its hosts."""
    for group in cgroups(mark, name):
        for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with suppress(OSError):
                if (group / file).exists():
                    (group / file).write_text(word)


def _remove_cgroups(mark: str) -> list[Path]:
    for group in cgroups(mark):
        with suppress(OSError):
            group.rmdir()
    return cgroups(mark)


def _until(done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + END_TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            raise CommandFailed(otherwise, step="lab down")
        time.sleep(0.02)
