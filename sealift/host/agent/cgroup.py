"""A container's control groups: which processes are in it, and freezing them, on cgroup v1 and v2."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup")
FREEZE_TIMEOUT_S = 10


def of_process(pid: int) -> Path:
    """The freezer group of a process, as a directory."""
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups[controllers] = path
    if "freezer" in groups:
        return ROOT / "freezer" / groups["freezer"].lstrip("/")
    return ROOT / groups[""].lstrip("/")


def pids(group: Path) -> list[int]:
    """All processes of a group and of the groups in it."""
    found: list[int] = []
    for directory, _, names in os.walk(group):
        if "cgroup.procs" in names:
            with _that_may_go():
                found += [int(line) for line in (Path(directory) / "cgroup.procs").read_text().split()]
    return found


def freeze(group: Path) -> None:
    """Freeze and wait until the kernel says that all are frozen. Polls tightly: every turn is downtime."""
    _write(group, frozen=True)
    deadline = time.monotonic() + FREEZE_TIMEOUT_S
    while not is_frozen(group):
        if time.monotonic() > deadline:
            thaw(group)
            raise AgentError(
                f"the processes in {group} did not freeze within {FREEZE_TIMEOUT_S} s", "final dump"
            )
        time.sleep(0.0005)


def thaw(group: Path) -> None:
    """Let them run again; a group that is gone needs nothing."""
    with _that_may_go():
        _write(group, frozen=False)


def is_frozen(group: Path) -> bool:
    """Whether the kernel has all of its processes frozen."""
    state = group / "freezer.state"
    if state.exists():
        return state.read_text().strip() == "FROZEN"
    return "frozen 1" in (group / "cgroup.events").read_text()


def kill_frozen(group: Path) -> None:
    """Kill the processes of a frozen group without letting one of them run another instruction.

    A frozen process on cgroup v1 dies only after thawing, but it dies before it returns to user space.
    """
    for pid in pids(group):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _that_may_go() -> Iterator[None]:
    """A group is removed when its last process has ended: its files are gone then, or if they are open, no device."""
    try:
        yield
    except OSError as gone:
        if gone.errno not in {errno.ENOENT, errno.ENODEV}:
            raise


def _write(group: Path, *, frozen: bool) -> None:
    state = group / "freezer.state"
    if state.exists():
        state.write_text("FROZEN" if frozen else "THAWED")
    else:
        (group / "cgroup.freeze").write_text("1" if frozen else "0")
