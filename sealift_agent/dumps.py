"""Where the images of each migration rest, and who is at work on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import locks
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DUMPS = Path("/run/sealift/dumps")
"""Images rest here only: a tmpfs of its own, so that `/run`'s size does not bound a container's memory."""

CONTAINER = "container"
"""The file of a migration's directory at the source that says which container it is of."""

OUTCOME = "outcome"
"""The file of a migration's directory by which `recover` tells its agent, if that one still asks, what was decided."""

UNMOUNT_TIMEOUT_S = 5
KILLED_S = 5
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
    with locks.alone(DUMPS.parent):
        yield


def told(directory: Path) -> str | None:
    """The outcome that `recover` has left for this migration's agent, if it has."""
    try:
        return (directory / OUTCOME).read_text() or None
    except OSError:
        return None


@contextlib.contextmanager
def abandoned(migration: str, outcome: str, *, kill: bool = False) -> Iterator[Path]:
    """A migration's directory, for who cleans up after its agent; wiped at the end. AgentError while that one lives.

    One that can't reach the gateway, and asks it for ever, is told the `outcome`, and puts its things away itself. One
    that does not come to an end with it hangs: with `kill`, where others can do what is left, it is killed.
    """
    directory = DUMPS / migration
    try:
        handle = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        yield directory
        return
    try:
        if not _is_free(handle, 0):
            fresh = directory / f"{OUTCOME}.new"
            with contextlib.suppress(FileNotFoundError):  # it has put everything away just now
                fresh.write_text(outcome)
                fresh.rename(directory / OUTCOME)
            free = _is_free(handle, LET_GO_S)
            if kill and not free:
                for pid in _holders(handle):
                    os.kill(pid, signal.SIGKILL)
                free = _is_free(handle, KILLED_S)
            if not free:
                raise AgentError(f"an agent of migration {migration} is at work here")
        yield directory
    finally:
        os.close(handle)
    _end_daemon(directory)
    wipe(directory)


def _end_daemon(directory: Path) -> None:
    """What an rsync daemon that has died has left for connections of its own: those that are silent never end."""
    mark = os.fsencode(f"--config={directory}/")
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(mark) for word in words) and _is_ours(path, words, (b"rsync",)):
                os.kill(int(path.name), signal.SIGKILL)


def _is_free(handle: int, within_s: float) -> bool:
    """Whether a lock could be had in that time."""
    deadline = time.monotonic() + within_s
    while not locks.try_lock(handle):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _holders(handle: int) -> list[int]:
    """Who has a file locked (proc_locks(5): kind, mode, access, pid, device and inode)."""
    inode = os.fstat(handle).st_ino
    found = []
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode) and int(words[4]) > 0:
            found.append(int(words[4]))
    return [pid for pid in found if pid != os.getpid() and _has_open(pid, handle)]


def _has_open(pid: int, handle: int) -> bool:
    """Whether a process has this very file open: inodes of several file systems have the same numbers."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.path.samestat(entry.stat(), os.fstat(handle)):
                    return True
    return False


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


WORKERS = (b"runc", b"criu")
"""Programs that work on images; besides, a pager, which is a program of the agents' own."""


def workers(directory: Path) -> list[int]:
    """What still works on one migration's images: runc, CRIU, a pager. Not the agents, which only know of them.

    A command line that names the directory tells which migration it is. It tells nothing of who wrote it, so the kernel
    is asked besides: see `_is_ours`.
    """
    return [
        int(path.name) for path in Path("/proc").glob("[0-9]*") if _works_on(path, os.fsencode(directory))
    ]


def kill_workers(directory: Path) -> None:
    """Kill them. Each is held by a descriptor while it is looked at again: its number may be another's by then."""
    mark = os.fsencode(directory)
    for pid in workers(directory):
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if _works_on(Path("/proc", str(pid)), mark):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def _works_on(path: Path, mark: bytes) -> bool:
    """Whether the process that the kernel shows there is a worker of ours on the images below `mark`."""
    try:
        words = (path / "cmdline").read_bytes().split(b"\0")
        named = any(word == mark or word.startswith(mark + b"/") for word in words)
        return named and _is_ours(path, words)
    except OSError:  # it has ended
        return False


def _is_ours(path: Path, words: list[bytes], programs: Sequence[bytes] = WORKERS) -> bool:
    """Whether no container and no other user can have started it, and it runs a program that works on images.

    A process of a container has mounts of its own (mount_namespaces(7)), also where it shares the host's process ids;
    one of another user has another user id, also if it runs a program as root. Neither can choose otherwise (proc(5)).
    """
    if not (path / "ns/mnt").samefile("/proc/self/ns/mnt"):
        return False
    ids = (path / "status").read_bytes().partition(b"\nUid:")[2].partition(b"\n")[0].split()
    if {int(each) for each in ids} != {os.geteuid()}:
        return False
    program = os.fsencode((path / "exe").readlink()).removesuffix(b" (deleted)").rpartition(b"/")[2]
    return program in programs or (program.startswith(b"python3") and words[2:3] == [b"pager"])
