"""Memory that comes after the start: a restored process runs, and CRIU's daemon fills its pages in behind it.

The daemon answers the process's page faults (userfaultfd) and copies the rest without being asked. Were it to die with
pages missing, the kernel would forget that they are missing and hand out zeroes. So the agent holds the same
descriptors: a process that needs a page that nobody will bring then waits, until it is ended for good.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .. import criu, pidfd
from ..wire import LOOPBACK, AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

UFFDIO_WAKE = 0x8010AA02
ANYWHERE = struct.pack("QQ", 1 << 16, (1 << 47) - (1 << 12) - (1 << 16))
"""linux/userfaultfd.h: _IOR(0xAA, 2, struct uffdio_range), and all addresses that a process can have."""

ROUSE_S = 0.01

SPARED = "-1000"
"""The kernel's out-of-memory killer leaves such a process alone (proc(5), oom_score_adj)."""


def spare(pid: int) -> None:
    """Keep the kernel's out-of-memory killer from a process, if this one may."""
    with contextlib.suppress(OSError):  # without CAP_SYS_RESOURCE
        Path(f"/proc/{pid}/oom_score_adj").write_text(SPARED)


class Filler:
    """`criu lazy-pages` for one restore. It outlives this process: nobody else could bring the missing pages."""

    def __init__(self, images: Path, work: Path, pager_port: int | None) -> None:
        self.work = work
        work.mkdir()
        self._guarded: list[int] = []
        self._watch: threading.Thread | None = None
        self._rouser: threading.Thread | None = None
        self._over = threading.Event()
        command = ["criu", "lazy-pages", "--images-dir", str(images), "--work-dir", str(work)]
        command += ["-o", "lazy-pages.log", "-v1"]
        if pager_port is not None:
            command += ["--page-server", "--address", LOOPBACK, "--port", str(pager_port)]
        self._process, listens = criu.start_listening(command, subprocess.DEVNULL)
        if not listens:
            self._process.wait()
            raise AgentError(self.reason(), "restore")
        spare(self._process.pid)

    def has_died(self) -> bool:
        """Whether it has ended with pages missing."""
        return bool(self._process.poll())

    def guard(self) -> None:
        """Hold what the daemon holds, before anything depends on it. AgentError if it has died already."""
        with contextlib.suppress(OSError):  # it has ended: said below, if it has not ended well
            for entry in Path(f"/proc/{self._process.pid}/fd").iterdir():
                # It may just have closed one, as its connection to the restore.
                with contextlib.suppress(OSError):
                    if str(entry.readlink()) == "anon_inode:[userfaultfd]":
                        self._guarded.append(pidfd.borrow(self._process.pid, int(entry.name)))
        if self.has_died():
            raise AgentError(self.reason(), "restore")
        self._rouser = threading.Thread(target=self._rouse, daemon=True)
        self._rouser.start()

    def _rouse(self) -> None:
        """Wake whoever waits for a page, again and again: who still needs it asks again.

        Where a process changes its mappings while a page is put in, the kernel refuses (UFFDIO_COPY, EAGAIN), and
        CRIU's daemon (4.2, uffd.c) forgets who waited for it: he would wait until the daemon comes to that page by
        itself, behind all others.
        """
        while not self._over.wait(ROUSE_S):
            for held in self._guarded:
                with contextlib.suppress(OSError):  # a process that has ended has no memory to wait for
                    fcntl.ioctl(held, UFFDIO_WAKE, ANYWHERE)

    def watch(self, on_failure: Callable[[], None]) -> None:
        """From here on (the commit) a daemon that ends with pages missing means `on_failure`."""

        def see_to_the_end() -> None:
            if self._process.wait() != 0:
                on_failure()
            self._let_go()

        self._watch = threading.Thread(target=see_to_the_end, daemon=True)
        self._watch.start()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until every page is in. AgentError when that will never be, or was not in time."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as late:
            raise AgentError(f"memory was not complete after {timeout_s} s", "finish") from late
        if self._watch is not None:
            self._watch.join()
        if status != 0:
            raise AgentError(
                f"the container was ended, since its memory can't be completed: {self.reason()}", "finish"
            )

    def stop(self) -> None:
        """Before the commit, once the restored processes are gone: nobody needs it any more."""
        if self._watch is None:
            self._process.kill()
            self._process.wait()
            self._let_go()

    def reason(self) -> str:
        """Why it died."""
        why = criu.reason(self.work / "lazy-pages.log")
        return why or f"CRIU's daemon for pages ended with status {self._process.returncode}"

    def _let_go(self) -> None:
        self._over.set()
        if self._rouser is not None:
            self._rouser.join()
        while self._guarded:
            os.close(self._guarded.pop())
