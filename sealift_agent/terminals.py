"""The terminals of a container: its own (`docker run -t`), and those that its processes have open.

Docker's own is mounted at /dev/console of the container. Its other end, the master, is open in containerd's shim.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import termios
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import held, pidfd, proc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

CONSOLE, PLACE, FILE_SYSTEM = "/dev/console", "/dev/pts", "devpts"
PTS_MAJORS, MAJORS = range(136, 144), (4, 5)
SESSIONS, SYSTEM, PTMX = os.makedev(5, 0), os.makedev(5, 1), os.makedev(5, 2)
"""/dev/tty, the console of the host (a program can make it by mknod) and /dev/ptmx."""

SESSION, TERMINAL = 3, 4
"""Which fields of /proc/PID/stat (proc(5)) they are, from the state on."""


class Terminal(NamedTuple):
    """The terminal `number` of the file system `device`."""

    device: int
    number: int

    @property
    def rdev(self) -> int:
        """The number of its device file."""
        return os.makedev(PTS_MAJORS[0] + (self.number >> 8), self.number & 0xFF)


def own(first: int) -> Terminal | None:
    """The terminal of the container with this first process, if it has one."""
    with contextlib.suppress(OSError):
        for mount in proc.mounts(first):
            if mount.point == CONSOLE and mount.kind == FILE_SYSTEM:
                major, minor = map(int, mount.device.split(":"))
                return Terminal(os.makedev(major, minor), int(mount.root.strip("/")))
    return None


def masters(shim: int, first: int) -> list[int]:
    """Descriptors of this process for the shim's end of the container's own terminal."""
    wanted = own(first)
    if wanted is None:
        return []
    found = {one.number for one in held.descriptors([shim]) if _master(one) == wanted}
    with contextlib.suppress(OSError):
        return [pidfd.borrow(shim, number) for number in found]
    return []


def _master(one: held.Held) -> Terminal | None:
    """The terminal of which a descriptor is the master."""
    if not one.target.endswith("/ptmx"):
        return None
    with contextlib.suppress(OSError, LookupError):
        opened = Path(f"/proc/{one.pid}/fd/{one.number}").stat()
        if opened.st_rdev == PTMX and stat.S_ISCHR(opened.st_mode):
            return Terminal(opened.st_dev, proc.fdinfo(one.pid, one.number)["tty-index"])
    return None


class Terminals:
    """What the descriptors of a container's processes are, as far as terminals go."""

    def __init__(self, first: int, pids: Collection[int]) -> None:
        self._pids = pids
        self._own, self._place = own(first), _place(first)
        self._session = _field(first, SESSION)
        # /dev/ptmx may lie in another file system than its terminals, so only their numbers count.
        masters = map(_master, held.descriptors(pids))
        self._inside = {master.number for master in masters if master is not None}

    def kind(self, pid: int, descriptor: int, target: str, opened: os.stat_result) -> str | None:
        """`console:` for the container's own, `pty:` for one made inside, `terminal:` for others, with its name.

        `system:` for the host's console, which is there on every host and is opened anew by its name.
        `left:` for that of a `docker exec` session, `session:` for a /dev/tty that CRIU can't open again. None for what
        is no terminal.
        """
        major = os.major(opened.st_rdev)
        if not stat.S_ISCHR(opened.st_mode) or (major not in PTS_MAJORS and major not in MAJORS):
            return None
        kind = "terminal"
        if major in PTS_MAJORS:
            kind = "pty" if _is_hung_up(pid, descriptor) else self._slave(_terminal(opened))
        elif opened.st_rdev == PTMX:
            kind = "pty"
        elif opened.st_rdev == SYSTEM:
            kind = "system"
        elif opened.st_rdev == SESSIONS:
            kind = self._of_session(pid)
        return f"{kind}:{target}"

    def follows(self, pid: int) -> bool:
        """Whether a process has the terminal of a session that was begun inside, and is not the session's first one."""
        terminal, session = _field(pid, TERMINAL), _field(pid, SESSION)
        return bool(terminal) and session in self._pids and session not in {pid, self._session}

    def _of_session(self, pid: int) -> str:
        """The kind of a process's /dev/tty. Of a terminal made inside, only the session's first process can have it."""
        session = _field(pid, SESSION)
        if self._own and session == self._session:
            return "console"
        return "pty" if session == pid else "session"

    def _slave(self, terminal: Terminal) -> str:
        if terminal == self._own:
            return "console"
        if terminal.number in self._inside:
            return "pty"
        return "left" if terminal.device == self._place else "terminal"

    def left(self, pids: Iterable[int]) -> set[Terminal]:
        """The terminals of `docker exec` sessions that these processes have open."""
        found = set()
        for one in held.descriptors(pids):
            if not one.target.startswith("/"):
                continue
            with contextlib.suppress(OSError):
                opened = Path(f"/proc/{one.pid}/fd/{one.number}").stat()
                if (self.kind(one.pid, one.number, "", opened) or "").startswith("left"):
                    found.add(_terminal(opened))
        return found


def _terminal(opened: os.stat_result) -> Terminal:
    major, minor = os.major(opened.st_rdev), os.minor(opened.st_rdev)
    return Terminal(opened.st_dev, minor + ((major - PTS_MAJORS[0]) << 8))


def _place(first: int) -> int | None:
    """The file system of the container's terminals: those of `docker exec` are in it, too."""
    try:
        return Path(f"/proc/{first}/root{PLACE}").stat().st_dev
    except OSError:
        return None


def _is_hung_up(pid: int, descriptor: int) -> bool:
    """Whether a terminal is over: its master is closed, or the session that it belonged to has ended."""
    try:
        ours = pidfd.borrow(pid, descriptor)
    except OSError:
        return False
    try:
        termios.tcgetattr(ours)
    except termios.error as refused:
        return bool(refused.args[0] == errno.EIO)
    finally:
        os.close(ours)
    return False


def _field(pid: int, number: int) -> int:
    fields = proc.stat(pid)[1]
    return int(fields[number]) if fields else 0
