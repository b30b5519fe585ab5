"""The agent's side of memory that follows a restore: the pager, and what happens if it dies.

Were it to die with pages missing, the kernel would forget that they are missing and hand out zeroes. So the agent holds
the same descriptors: a process that needs a page that nobody will bring then waits, until it is ended for good.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import pidfd
from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

WORD_S, RESTORED_S = 60, 10
"""A busy host may take seconds to start a program. Clients wait for the word that all is restored."""


class LazyPagesDaemon:
    """A pager for one restore, which waits for its word. It outlives this process: nobody else could bring the pages.

    `directory` is the migration's, `images` the last dump's, `work` that of CRIU's restore.
    """

    def __init__(self, directory: Path, images: Path, work: Path) -> None:
        self._guarded: list[int] = []
        self._watch: threading.Thread | None = None
        self._log = directory / "pager.log"
        self._post, theirs = socket.socketpair()
        with self._log.open("wb") as log, theirs:
            self._process = subprocess.Popen(
                # By the directory `dumps.workers` finds out later whose it is.
                [sys.executable, sys.argv[0], "pager", *map(str, (directory, images, work, theirs.fileno()))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._hear("listens")

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def begin(self, source: socket.socket | None) -> None:
        """Have it bring what the images leave out, from a source or else from the images that are here.

        `source` is a connection to the page server there, which the pager then has alone.
        """
        if source is not None:
            with source, contextlib.suppress(OSError):  # it has died, and `reason` says why
                socket.send_fds(self._post, [b"s"], [source.fileno()])
        self._say({"source": source is not None})

    def read_ahead(self) -> None:
        """Tell it that the images of all rounds but the last dump are there."""
        self._say({"read": "ahead"})

    def run(self) -> None:
        """Tell it that the container has been committed to this host."""
        self._say({"committed": True})

    def _say(self, word: dict[str, Any]) -> None:
        assert self._process.stdin  # noqa: S101 - it was asked for
        with contextlib.suppress(BrokenPipeError):  # it is through, or `reason` says why not
            self._process.stdin.write(f"{json.dumps(word)}\n")
            self._process.stdin.flush()

    def _hear(self, word: str, timeout_s: float = WORD_S) -> None:
        """Wait until it says that. AgentError if it has ended instead, or does not."""
        assert self._process.stdout  # noqa: S101 - it was asked for
        ready = select.select([self._process.stdout], [], [], timeout_s)[0]
        if not ready or word not in self._process.stdout.readline():
            raise AgentError(self.reason() if ready else f"the pager does not say {word!r}", "restore")

    def has_died(self) -> bool:
        """Whether it has ended with pages missing."""
        return bool(self._process.poll())

    def guard(self) -> None:
        """Hold what it holds, before anything depends on it. AgentError if it has died already."""
        self._hear("restored", RESTORED_S)
        with contextlib.suppress(OSError):  # it has ended: said below, if it has not ended well
            for entry in Path(f"/proc/{self._process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(entry.readlink()) == "anon_inode:[userfaultfd]":
                        self._hold(int(entry.name))
        if self.has_died():
            raise AgentError(self.reason(), "restore")

    def _hold(self, descriptor: int) -> None:
        """Hold what the pager has by this number. It may just have closed it: the process has ended."""
        with contextlib.suppress(OSError):
            self._guarded.append(pidfd.borrow(self._process.pid, descriptor))

    def watch(self, on_failure: Callable[[], None]) -> None:
        """From here on (the commit) a pager that ends with pages missing means `on_failure`."""

        def see_to_the_end() -> None:
            assert self._process.stdout  # noqa: S101 - it was asked for
            for line in self._process.stdout:
                self._hold(json.loads(line)["forked"])
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
        self._process.wait()
        why = self._log.read_text(errors="replace").strip()
        return why or f"the pager ended with status {self._process.returncode}"

    def _let_go(self) -> None:
        while self._guarded:
            os.close(self._guarded.pop())
