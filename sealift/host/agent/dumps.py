"""Where the images of each migration rest, and who is at work on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

DUMPS = Path("/run/sealift/dumps")
"""Images rest here only: a tmpfs of its own, so that `/run`'s size does not bound a container's memory."""

CONTAINER = "container"
"""The file of a migration's directory at the source that says which container it is of."""

OUTCOME = "outcome"
"""The file of a migration's directory by which `recover` tells its agent, if that one still asks, what was decided."""

UNMOUNT_TIMEOUT_S = 5
LET_GO_S = 10
"""How long an agent that still asked the gateway may take to put its things away once it is told."""


def _mount() -> Path:
    """Mount the tmpfs that images rest on. Returns the directory."""
    DUMPS.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(DUMPS):
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=90%,mode=700", "sealift-dumps", str(DUMPS)], check=True
        )
    return DUMPS


def make(migration: str) -> tuple[Path, int]:
    """Make one migration's directory, and lock it for as long as this process lives. Returns it and the lock."""
    with _alone():
        directory = _mount() / migration
        directory.mkdir(mode=0o700)
        handle = os.open(directory, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    return directory, handle


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Nobody unmounts the tmpfs between its being there and a directory's being in it."""
    handle = os.open(DUMPS.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def told(directory: Path) -> str | None:
    """The outcome that `recover` has left for this migration's agent, if it has."""
    try:
        return (directory / OUTCOME).read_text() or None
    except OSError:
        return None


@contextlib.contextmanager
def abandoned(migration: str, outcome: str) -> Iterator[Path]:
    """A migration's directory, for who cleans up after its agent; wiped at the end. AgentError while that one lives.

    One that can't reach the gateway, and asks it for ever, is told the `outcome`, and puts its things away itself.
    """
    directory = DUMPS / migration
    try:
        handle = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        yield directory
        return
    try:
        if not _lock(handle):
            fresh = directory / f"{OUTCOME}.new"
            with contextlib.suppress(FileNotFoundError):  # it has put everything away just now
                fresh.write_text(outcome)
                fresh.rename(directory / OUTCOME)
            deadline = time.monotonic() + LET_GO_S
            while not _lock(handle) and time.monotonic() < deadline:
                time.sleep(0.1)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
    except BlockingIOError as held:
        raise AgentError(f"an agent of migration {migration} is at work here") from held
    finally:
        os.close(handle)
    wipe(directory)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wipe(directory: Path, lock: int | None = None) -> None:
    """Remove one migration's images, and the tmpfs with the last of them: a lock in it would keep it mounted."""
    if lock is not None:
        os.close(lock)
    shutil.rmtree(directory, ignore_errors=True)
    deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
    while not _unmount() and time.monotonic() < deadline:
        time.sleep(0.05)  # a process that was killed a moment ago still has a file open


def _unmount() -> bool:
    """Take the tmpfs away if it is empty. False if it is, and could not be."""
    with _alone():
        if not os.path.ismount(DUMPS) or any(DUMPS.iterdir()):
            return True
        return subprocess.run(["umount", str(DUMPS)], check=False, capture_output=True).returncode == 0


def workers(directory: Path) -> list[int]:
    """What still works on one migration's images: runc, CRIU, a pager. Not the agents, which only know of them."""
    mark = os.fsencode(directory)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word == mark or word.startswith(mark + b"/") for word in words):
            found.append(int(path.parent.name))
    return found
