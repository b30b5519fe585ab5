"""The agent's side of post-copy memory: it starts the pager, and acts if the pager dies.

If the pager dies with pages missing, the kernel forgets that they are missing and gives out zeroes. So the agent holds
the same descriptors. Then a process that needs a missing page waits until the container is ended.
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
from .lazy_socket import RESTORE_ENDED

if TYPE_CHECKING:
    from collections.abc import Callable

WORD_S, RESTORED_S = 60, 10
"""Bounds for the pager's messages. A busy host may need seconds to start a program. Clients wait for the second
message, which says that all is restored."""


class LazyPagesDaemon:
    """The pager of one restore. It outlives this process, since no other process could bring the pages.

    `directory` is the migration's, `images` has the last dump, `work` is the directory of CRIU's restore. `waited` is
    how long processes have waited for pages, once all are in: see `waits`.
    """

    def __init__(self, directory: Path, images: Path, work: Path) -> None:
        self._guarded: list[int] = []
        self._watch: threading.Thread | None = None
        self.waited: dict[str, int] | None = None
        self._log = directory / "pager.log"
        self._post, theirs = socket.socketpair()
        with self._log.open("wb") as log, theirs:
            self._process = subprocess.Popen(
                # `dumps.workers` later tells by the directory which migration it belongs to.
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
        """Let it bring the pages that the images leave out: from `source`, or from the images here if that is None.

        `source` is a connection to the page server there. Afterwards only the pager has it.
        """
        if source is not None:
            with source, contextlib.suppress(OSError):  # it has died, and `reason` says why
                socket.send_fds(self._post, [b"s"], [source.fileno()])
        self._say({"source": source is not None})

    def read_ahead(self) -> None:
        """Tell it that the images of all rounds are there, except the last dump's."""
        self._say({"read": "ahead"})

    def run(self) -> None:
        """Tell it that the container has been committed to this host."""
        self._say({"committed": True})

    def _say(self, word: dict[str, Any]) -> None:
        assert self._process.stdin  # noqa: S101 - stdin is a pipe
        with contextlib.suppress(BrokenPipeError):  # it has finished, or `reason` says why not
            self._process.stdin.write(f"{json.dumps(word)}\n")
            self._process.stdin.flush()

    def _hear(self, word: str, timeout_s: float = WORD_S) -> None:
        """Wait for this message. AgentError if it does not come, or if the pager has ended."""
        assert self._process.stdout  # noqa: S101 - stdout is a pipe
        ready = select.select([self._process.stdout], [], [], timeout_s)[0]
        if not ready or word not in self._process.stdout.readline():
            raise AgentError(self.reason() if ready else f"the pager does not say {word!r}", "restore")

    def has_died(self) -> bool:
        """Whether it has ended with pages missing."""
        return bool(self._process.poll())

    def outlived_restore(self) -> bool:
        """Whether it has died because the restore had ended: then CRIU knows the reason, and the pager does not."""
        return self._process.poll() == RESTORE_ENDED

    def guard(self) -> None:
        """Hold the pager's descriptors, too, before anything depends on it. AgentError if it has died already."""
        self._hear("restored", RESTORED_S)
        with contextlib.suppress(OSError):  # it has ended: whether with an error, is checked below
            for entry in Path(f"/proc/{self._process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(entry.readlink()) == "anon_inode:[userfaultfd]":
                        self._hold(int(entry.name))
        if self.has_died():
            raise AgentError(self.reason(), "restore")

    def _hold(self, descriptor: int) -> None:
        """Hold the descriptor that has this number in the pager.

        If the pager has just closed it, its process has ended.
        """
        with contextlib.suppress(OSError):
            self._guarded.append(pidfd.borrow(self._process.pid, descriptor))

    def watch(self, on_failure: Callable[[], None]) -> None:
        """From now on (the commit) `on_failure` is called if the pager ends with pages missing."""

        def wait_for_its_end() -> None:
            assert self._process.stdout  # noqa: S101 - stdout is a pipe
            for line in self._process.stdout:
                said = json.loads(line)
                if "forked" in said:
                    self._hold(said["forked"])
                self.waited = said.get("waited", self.waited)
            if self._process.wait() != 0:
                on_failure()
            self._close_guarded()

        self._watch = threading.Thread(target=wait_for_its_end, daemon=True)
        self._watch.start()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until every page is in. AgentError if that is impossible, or takes longer than `timeout_s` seconds."""
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
        """End it before the commit, when the restored processes have ended and nobody needs it."""
        if self._watch is None:
            self._process.kill()
            self._process.wait()
            self._close_guarded()

    def reason(self) -> str:
        """Why it died."""
        self._process.wait()
        why = self._log.read_text(errors="replace").strip()
        return why or f"the pager ended with status {self._process.returncode}"

    def _close_guarded(self) -> None:
        while self._guarded:
            os.close(self._guarded.pop())
