"""Programs started ahead of time: runc waits with all that it needs prepared, and CRIU starts at a word."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import criu
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

SHIMS = Path("/usr/libexec/sealift/armed")
"""What stands in for programs that runc and CRIU find in PATH."""

ARM_TIMEOUT_S = 60
MANY = 32
"""Processes. Fewer take so little time that the whole log, which tells more of a failure, is worth it."""


class Trigger:
    """A pipe with a name, in a directory, that a program waits at. Held open here: if this process dies, it ends."""

    def __init__(self, directory: Path, step: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.step = step
        os.mkfifo(directory / "go", 0o600)
        # For writing alone the kernel would not open it before somebody reads.
        self._pipe = os.open(directory / "go", os.O_RDWR | os.O_NONBLOCK)

    def environment(self, call: int, settings: str, base: dict[str, str] | None = None) -> dict[str, str]:
        """For a runc whose CRIU is to wait here, and to have these settings beside those of its configuration file.

        `call` is the number of the call that does the work.
        """
        (self.directory / "criu.conf").write_bytes(os.fsencode(settings))
        found = dict(base or os.environ)
        found["PATH"] = f"{SHIMS}:{found.get('PATH', os.defpath)}"
        found |= {"SEALIFT_ARMED": str(self.directory), "SEALIFT_CALL": str(call)}
        found[criu.SETTINGS] = str(self.directory / "criu.conf")
        return found

    def wait(self, mark: str, complaint: Callable[[], str | None], timeout_s: float = ARM_TIMEOUT_S) -> None:
        """Wait until a file named `mark` is in the directory. `complaint` says why it never will be."""
        deadline = time.monotonic() + timeout_s
        while not (self.directory / mark).exists():
            if (why := complaint()) is not None:
                raise AgentError(why, self.step)
            if time.monotonic() > deadline:
                raise AgentError(f"{mark!r} was not reached in {timeout_s:g} s", self.step)
            time.sleep(0.001)

    def spare_log(self, processes: int) -> None:
        """Before `go`: with that many processes CRIU shall log warnings and errors only: see `interposed.c`."""
        if processes >= MANY:
            (self.directory / "little-log").touch()

    def say(self, word: str) -> None:
        """Let the program that waits read a line."""
        os.write(self._pipe, f"{word}\n".encode())

    def close(self) -> None:
        """Call it off: who waits reads the end of the file. After `say` it changes nothing."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def let_go(directory: Path) -> None:
    """After an agent that was killed: who has come to the pipe only since then ends as well."""
    with contextlib.suppress(OSError):  # nobody waits there
        os.close(os.open(directory / "go", os.O_WRONLY | os.O_NONBLOCK))
