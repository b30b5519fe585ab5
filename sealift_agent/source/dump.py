"""The last dump, prepared before the freeze: runc and CRIU are started up to CRIU's first look at the processes.

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
"""How long a dump that stood still has to end once the container is thawed."""

ENDED_S = 1
"""How often a dump that is to end is looked at."""

DUMP_CALL, LAZY_DUMP_CALL = 2, 3
"""runc asks CRIU for its version, before a lazy dump for its features, then for the dump."""

INHERITED = ("--page-server", "127.0.0.1:1")
"""runc's word for CRIU to send its pages away. Where to, the settings say: to a connection that it inherits."""

PAGES = "pages"
"""The file of a migration's directory that names the connection on which a post-copy's pages are asked for."""


class Wanted(NamedTuple):
    """What is to be dumped, and how: the container with its freezer `group`, into `images`.

    `settings` are CRIU's, `env` that of runc, `freezer` what CRIU is to take for the group. `on_top` are runc's words
    for a dump that has only what changed since the last one.
    """

    container: str
    group: Path
    images: Path
    settings: str
    env: dict[str, str] | None
    freezer: Path | None
    on_top: list[str]


class Dump:
    """One dump, whose pages go to the destination's page server by the connection `outgoing`.

    prepared (when it is made; `wait_until_ready` tells) → dumping (`begin`) → over (`wait`, or `end` at any time).
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
        """Until only the word is missing. AgentError if runc has ended instead."""
        self._trigger.wait("ready", self._complaint)

    def _complaint(self) -> str | None:
        if self._process.poll() is None:
            return None
        output, _ = self._process.communicate()
        return criu.reason(self._images / "dump.log") or output.strip()[-500:] or "runc ended"

    def begin(self) -> None:
        """The container is frozen: CRIU looks at its processes."""
        self._trigger.say("go")

    def pushed(self) -> contextlib.AbstractContextManager[object]:
        """For the length of a block: what CRIU keeps back of the pages is pushed on."""
        return self._outgoing.pushed()

    def sent(self) -> dict[str, int]:
        """What was sent of the pages, if something between knows: see `Outgoing.sent`."""
        return self._outgoing.sent()

    def wait(self) -> None:
        """Until all is dumped. AgentError if CRIU fails or stands still; then the container has been thawed."""
        self._watch([])
        self._finish()

    def _watch(self, said: list[Any]) -> None:
        """Until CRIU has ended, or one of these can be read."""
        progress = criu.Progress(self._images / "dump.log", self._process.pid)
        with criu.end_of(self._process) as ended:
            while not select.select([ended, *said], [], [], criu.POLL_S)[0]:
                if progress.stands_still():
                    self._give_up()

    def _finish(self) -> None:
        criu.finish(self._process, "final dump", self._images / "dump.log", bounded=True)

    def _give_up(self) -> NoReturn:
        """CRIU waits for something that frozen processes won't do. Thawed they may; what is dumped is thrown away."""
        self._break_off()
        why = f"CRIU has stood still for {criu.STANDSTILL_S} s while it dumped the frozen container"
        raise AgentError(why, "final dump")

    def _break_off(self) -> None:
        cgroup.thaw(self._group)
        try:
            self._process.wait(LET_GO_S)
        except subprocess.TimeoutExpired:
            repair.end(cgroup.pids(self._group))  # they run as soon as it is dead
            criu.kill_criu(self._images.parent)

    def end(self, *, committed: bool = False) -> None:
        """No dump any more; one that is under way comes to its end, since CRIU has something to clear away in there.

        After the commit it is waited for as long as it takes: its memory may still be asked for.
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
        """Have a CRIU end that serves pages."""

    def wait_until_fetched(self) -> int:
        """After the commit: until the other side has all memory. Returns how much was fetched since, in bytes."""
        return 0


class LazyDump(Dump):
    """A dump that keeps the pages, and serves them on its connection: who reads them has proved itself.

    `outgoing` is a connection without anything in between. `wait` returns as soon as pages can be asked for.
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
        """Nothing is sent before it is asked for."""
        return contextlib.nullcontext()

    def wait(self) -> None:
        """Until its pages can be asked for. AgentError if CRIU fails or stands still."""
        self._watch([self._dumped])
        if not self._dumped.read(1):
            self._finish()

    def _dismiss(self) -> None:
        dismiss(self._pages)

    def wait_until_fetched(self) -> int:
        """After the commit. AgentError if CRIU has failed: then the copy here is the only one that has the rest."""
        try:
            criu.finish(self._process, "finish", self._images / "dump.log")
        except AgentError as lost:
            raise AgentError(
                f"not all of the memory has been fetched, and the copy here stays frozen: {lost}", "finish"
            ) from lost
        return sum(pages for _, _, pages in lazy_ranges(self._images)) * PAGE_BYTES


def dismiss(pages: str) -> None:
    """Have a CRIU that serves pages, or is to, give up: its connection is cut, which `pages` names at this end."""
    subprocess.run(["ss", "--kill", "src", pages], capture_output=True, check=False)
