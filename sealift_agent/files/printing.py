"""The pipes between a container and Docker: they are emptied at the source and filled at the destination.

A container prints into a pipe, or on its terminal. Its shim copies that into a named pipe, from which Docker reads. The
shim begins to copy when the runtime's `create` has returned. So the destination writes old output into the named pipes.
Docker reads them before the restore. So all old lines come before the first line of the restored processes.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import select
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import proc, terminals
from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

FIFOS = Path("/run/docker/containerd")
"""The directory of the named pipes, with a directory for each container (moby, libcontainerd/remote): `…-stdout`,
`…-stderr`."""

PROCESS_ID = Path("/run/docker.pid")
STREAMS = ("stdout", "stderr")
BOUND_S = 5
"""Seconds that Docker may take for reading or for writing the log. After that the migration is called off."""

CHECKS, CHECK_S, STILL_S = 2, 0.004, 1
"""How many checks in a row must find nothing on the way, the seconds between two, and the seconds without a change
of the log that are enough."""

SET_CAPACITY, CAPACITY_BYTES = 1031, 1 << 20
"""The number of F_SETPIPE_SZ (fcntl(2)), since hosts have Python 3.9."""


class Printer:
    """At the destination: prints the output of the source again, until the shim begins to copy."""

    def __init__(self, container: str, *, terminal: bool = False) -> None:
        """`terminal`: the container has one, and Docker one pipe for all that it prints."""
        self._pipes: dict[str, int] = {}
        for stream in STREAMS[:1] if terminal else STREAMS:
            path = _fifo(container, stream)
            if path is None:
                raise AgentError(
                    f"Docker's pipe for the container's {stream} is not below {FIFOS}", "restore"
                )
            self._pipes[stream] = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            with contextlib.suppress(OSError):  # it works with less, but slower
                fcntl.fcntl(self._pipes[stream], SET_CAPACITY, CAPACITY_BYTES)

    def print(self, lines: bytes) -> None:
        """Print entries of a log through the streams that they came from. AgentError if Docker does not read."""
        for line in lines.split(b"\n"):
            try:
                entry = json.loads(line)
                pipe, text = self._pipes[entry["stream"]], entry["log"].encode()
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # the last line, if dockerd was killed while it wrote
            while text:
                if not select.select([], [pipe], [], BOUND_S)[1]:
                    raise AgentError(
                        f"Docker has not read what the container printed for {BOUND_S} s", "restore"
                    )
                with contextlib.suppress(BlockingIOError):
                    text = text[os.write(pipe, text) :]

    def close(self) -> None:
        """Close the pipes after the shim has opened them: without any writer Docker would end the log."""
        while self._pipes:
            os.close(self._pipes.popitem()[1])


class Drained:
    """At the source, after the freeze: waits until Docker has written all output to the log. It begins when it is made.

    The shim moves output from the container's pipes, or its terminal, to the named pipes, and dockerd from those to the
    log. They are checked in this order. If the pipes are empty and neither program is at work, nothing is on the way.
    If dockerd is always at work for other containers, the check ends when the log has not changed for `STILL_S`.
    """

    def __init__(self, container: str, first: int, descriptors: Collection[str], log: Path) -> None:
        """`first` is the container's first process.

        `descriptors` are the targets of its standard streams (`pipe:[…]`).
        """
        self._log = log
        self._failure: str | None = None
        self._shim = int(proc.status(first).get("PPid", "0"))
        self._printed = [*_opened(_pipes(self._shim, descriptors)), *terminals.masters(self._shim, first)]
        self._named = _opened(_fifos(container))
        self._daemon = _daemon()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="drained")
        self._thread.start()

    def _watch(self) -> None:
        try:
            began = still_since = time.monotonic()
            checks, size = 0, -1
            while (checks := checks + 1 if self._is_through() else 0) < CHECKS:
                now, before, size = time.monotonic(), size, _size(self._log)
                if size != before or self._holds():
                    still_since = now
                if now > still_since + STILL_S:
                    return
                if now > began + BOUND_S:
                    self._failure = f"Docker has not written what the container printed for {BOUND_S} s"
                    return
                time.sleep(CHECK_S)
        except OSError as failed:
            self._failure = (
                f"the check whether Docker has read all that the container printed failed: {failed}"
            )

    def _is_through(self) -> bool:
        return not (
            any(map(_held_bytes, self._printed))
            or _is_busy(self._shim)
            or any(map(_held_bytes, self._named))
            or _is_busy(self._daemon)
        )

    def _holds(self) -> bool:
        return any(map(_held_bytes, [*self._printed, *self._named]))

    def wait(self) -> None:
        """AgentError if Docker has not written everything in time."""
        self._thread.join()
        for pipe in (*self._printed, *self._named):
            os.close(pipe)
        self._printed = self._named = []
        if self._failure is not None:
            raise AgentError(self._failure, "final dump")


def _opened(paths: Iterable[Path]) -> list[int]:
    return [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in paths]


def _fifo(container: str, stream: str) -> Path | None:
    """The pipe of the container's first process. Pipes of `docker exec` have other names."""
    names = (f"{container}-{stream}", f"init-{stream}")
    return next((path for name in names if (path := FIFOS / container / name).exists()), None)


def _fifos(container: str) -> list[Path]:
    return [path for stream in STREAMS if (path := _fifo(container, stream)) is not None]


def _pipes(shim: int, descriptors: Collection[str]) -> list[Path]:
    """The ends of a container's pipes in its shim, which is the parent of its first process."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{shim}/fd").iterdir():
            with contextlib.suppress(OSError):
                if (target := str(entry.readlink())) in descriptors and target.startswith("pipe:"):
                    found[target] = entry
    return list(found.values())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _held_bytes(pipe: int) -> int:
    # What was just written to a terminal is on its way to the master for a moment, where FIONREAD does not see it. To
    # answer poll(2) the kernel carries it there first (n_tty_poll).
    asked = select.poll()
    asked.register(pipe, select.POLLIN)
    asked.poll(0)
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def _daemon() -> int | None:
    try:
        return int(PROCESS_ID.read_text())
    except (OSError, ValueError):
        return None


def _is_busy(program: int | None) -> bool:
    """Whether one of its threads runs, or waits for a processor or a disk. It may then have lines in its memory."""
    if not program:
        return False
    states = (proc.stat(f"{program}/task/{thread}")[1][:1] for thread in proc.threads(program))
    return any(state in (["R"], ["D"]) for state in states)
