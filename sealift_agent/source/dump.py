"""The last dump. It is prepared before the freeze: runc and CRIU run up to where CRIU first reads the processes.

In a post-copy the pages stay at the source until they are asked for: `LazyDump`.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

from .. import cgroup, criu
from ..constants import PAGE_BYTES
from ..images import lazy_ranges
from ..network import repair
from ..wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

    from ..memory.transfer import Outgoing
    from ..trigger import Trigger

DUMP_TIMEOUT_S = 60
LET_GO_S = 5
"""Seconds that a dump which made no progress has to end after the container was thawed."""

ENDED_S = 1
"""Seconds between two checks of a dump that is to end."""

DUMP_CALL, LAZY_DUMP_CALL = 2, 3
"""How often runc starts CRIU: for its version, before a lazy dump for its features, and for the dump."""

INHERITED = ("--page-server", "127.0.0.1:1")
"""Runc's option that lets CRIU send its pages away. The settings name the connection, which CRIU inherits."""

PAGES = "pages"
"""The file in a migration's directory that names the connection over which a post-copy's pages are asked for."""


class Wanted(NamedTuple):
    """The container to be dumped with its freezer `group`, and the directory `images`.

    `settings` are CRIU's, `env` is runc's environment. `freezer` is the group that CRIU uses instead of `group`.
    `on_top` are further options of runc, as for a dump of only what changed since the last one.
    """

    container: str
    group: Path
    images: Path
    settings: str
    env: dict[str, str] | None
    freezer: Path | None
    on_top: list[str]


class Dump:
    """One dump, whose pages go to the destination's page server over the connection `outgoing`.

    States: prepared (when it is made; see `wait_until_ready`) → dumping (`begin`) → over (`wait`, or `end` at any
    time).
    """

    def __init__(self, wanted: Wanted, trigger: Trigger, outgoing: Outgoing) -> None:
        self._group, self._images = wanted.group, wanted.images
        self._trigger, self._outgoing = trigger, outgoing
        self._process = self._start(wanted)

    def _start(self, wanted: Wanted) -> subprocess.Popen[str]:
        process = criu.checkpoint(
            wanted.container,
            wanted.images,
            "--leave-running",
            *INHERITED,
            *wanted.on_top,
            env=self._trigger.environment(DUMP_CALL, wanted.settings, wanted.env),
            freezer=wanted.freezer,
            pass_fds=[self._outgoing.descriptor],
        )
        self._outgoing.hand_over()
        return process

    def wait_until_ready(self) -> None:
        """Wait until CRIU is ready for `begin`. AgentError if runc has ended instead."""
        self._trigger.wait("ready", self._complaint)

    def _complaint(self) -> str | None:
        if self._process.poll() is None:
            return None
        output, _ = self._process.communicate()
        return criu.reason(self._images / "dump.log") or output.strip()[-500:] or "runc ended"

    def begin(self) -> None:
        """Let CRIU dump. The container is frozen."""
        self._trigger.spare_log(len(cgroup.pids(self._group)))
        self._trigger.say("go")

    def pushed(self) -> contextlib.AbstractContextManager[object]:
        """Within a block, send at once the pages that CRIU holds back."""
        return self._outgoing.pushed()

    def sent(self) -> dict[str, int]:
        """The bytes of pages that a relay has sent, if there is one: see `Outgoing.sent`."""
        return self._outgoing.sent()

    def wait(self) -> None:
        """Wait until everything is dumped.

        If CRIU fails or makes no progress, the container is thawed and AgentError raised.
        """
        self._watch([])
        self._finish()

    def _watch(self, said: list[Any]) -> None:
        """Wait until CRIU has ended, or one of these is readable."""
        progress = criu.Progress(self._images / "dump.log", self._process.pid)
        with criu.end_of(self._process) as ended:
            while not select.select([ended, *said], [], [], criu.POLL_S)[0]:
                if progress.stands_still():
                    self._give_up()

    def _finish(self) -> None:
        criu.finish(self._process, "final dump", self._images / "dump.log", bounded=True)

    def _give_up(self) -> NoReturn:
        """Abort the dump: CRIU waits for something that frozen processes can't do. After a thaw they can."""
        self._break_off()
        why = f"CRIU has stood still for {criu.STANDSTILL_S} s while it dumped the frozen container"
        raise AgentError(why, "final dump")

    def _break_off(self) -> None:
        cgroup.thaw(self._group)
        try:
            self._process.wait(LET_GO_S)
        except subprocess.TimeoutExpired:
            repair.end(cgroup.pids(self._group))  # the processes run as soon as CRIU is dead
            criu.kill_criu(self._images.parent)

    def end(self, *, committed: bool = False) -> None:
        """End the dump. A running one is not killed, since CRIU has to clean up inside the processes.

        After the commit this waits as long as necessary, since the memory may still be asked for.
        """
        self._trigger.close()
        deadline = time.monotonic() + DUMP_TIMEOUT_S
        while self._process.poll() is None:
            if not committed:
                if time.monotonic() > deadline:
                    self._break_off()
                self._dismiss()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=ENDED_S)

    def _dismiss(self) -> None:
        """Let a CRIU that serves pages end."""

    def wait_until_fetched(self) -> int:
        """After the commit, wait until the other side has all memory. Returns the bytes that were fetched since."""
        return 0


class LazyDump(Dump):
    """A dump that keeps its pages, and serves them to the authenticated reader of its connection.

    `outgoing` is a connection without a relay. `wait` returns when pages can be asked for.
    """

    def __init__(self, wanted: Wanted, trigger: Trigger, outgoing: Outgoing) -> None:
        self._pages = outgoing.name
        (wanted.images.parent / PAGES).write_text(self._pages)
        read_end, self._status = os.pipe()
        self._dumped: BinaryIO = os.fdopen(read_end, "rb", buffering=0)
        super().__init__(wanted, trigger, outgoing)

    def _start(self, wanted: Wanted) -> subprocess.Popen[str]:
        try:
            process = criu.checkpoint(
                wanted.container,
                wanted.images,
                "--leave-running",
                "--lazy-pages",
                *wanted.on_top,
                "--status-fd",
                str(self._status),
                env=self._trigger.environment(LAZY_DUMP_CALL, wanted.settings, wanted.env),
                freezer=wanted.freezer,
                pass_fds=[self._status, self._outgoing.descriptor],
            )
        finally:
            os.close(self._status)
        self._outgoing.leave_to_criu()
        return process

    def pushed(self) -> contextlib.AbstractContextManager[object]:
        """No-op: pages are sent only when they are asked for."""
        return contextlib.nullcontext()

    def wait(self) -> None:
        """Wait until its pages can be asked for. AgentError if CRIU fails or makes no progress."""
        self._watch([self._dumped])
        if not self._dumped.read(1):
            self._finish()

    def _dismiss(self) -> None:
        dismiss(self._pages)

    def wait_until_fetched(self) -> int:
        """Wait after the commit. AgentError if CRIU has failed: then only the copy here has the rest."""
        try:
            criu.finish(self._process, "finish", self._images / "dump.log")
        except AgentError as lost:
            raise AgentError(
                f"not all of the memory has been fetched, and the copy here stays frozen: {lost}", "finish"
            ) from lost
        return sum(pages for _, _, pages in lazy_ranges(self._images)) * PAGE_BYTES


def dismiss(pages: str) -> None:
    """End a CRIU that serves pages, or will: its connection is closed. `pages` names this end of it."""
    subprocess.run(["ss", "--kill", "src", pages], capture_output=True, check=False)
