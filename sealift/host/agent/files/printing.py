"""The pipes between a container and Docker: emptied at the source, filled at the destination.

A container prints into a pipe, which its shim copies into one with a name, which Docker reads. The shim begins to copy
when the runtime's `create` has returned. So what is printed again at the destination goes into the pipes with names:
Docker reads these before the restore, and all of it is there before the first line of the restored processes.
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

from .. import proc
from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Collection

FIFOS = Path("/run/docker/containerd")
"""Where Docker keeps them, in a directory for each container (moby, libcontainerd/remote): `…-stdout`, `…-stderr`."""

PROCESS_ID = Path("/run/docker.pid")
STREAMS = ("stdout", "stderr")
BOUND_S = 5
"""So long Docker may take nothing, or not be through: then the migration is called off."""

STILL_S = 0.03
LOOK_S = 0.004
SET_CAPACITY, CAPACITY_BYTES = 1031, 1 << 20
"""F_SETPIPE_SZ (fcntl(2)), by its number: hosts have Python 3.9."""


class Printer:
    """At the destination: prints what was printed before, until the shim does."""

    def __init__(self, container: str) -> None:
        self._pipes: dict[str, int] = {}
        for stream in STREAMS:
            path = _fifo(container, stream)
            if path is None:
                raise AgentError(
                    f"Docker's pipe for the container's {stream} is not below {FIFOS}", "restore"
                )
            self._pipes[stream] = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            with contextlib.suppress(OSError):  # less than that does, more slowly
                fcntl.fcntl(self._pipes[stream], SET_CAPACITY, CAPACITY_BYTES)

    def print(self, lines: bytes) -> None:
        """Print entries of a log through the streams that they came from. AgentError if Docker does not read."""
        for line in lines.split(b"\n"):
            try:
                entry = json.loads(line)
                pipe, text = self._pipes[entry["stream"]], entry["log"].encode()
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # the last line of a daemon that was killed while it wrote
            while text:
                if not select.select([], [pipe], [], BOUND_S)[1]:
                    raise AgentError(
                        f"Docker has not read what the container printed for {BOUND_S} s", "restore"
                    )
                with contextlib.suppress(BlockingIOError):
                    text = text[os.write(pipe, text) :]

    def close(self) -> None:
        """Once the shim has the pipes open: when the last one leaves them Docker takes the log for ended."""
        while self._pipes:
            os.close(self._pipes.popitem()[1])


class Drained:
    """At the source, once all is frozen: under way from its making on until Docker has written down all that it got."""

    def __init__(self, container: str, first: int, descriptors: Collection[str], log: Path) -> None:
        """`first` is the container's first process, `descriptors` what its standard ones lead to (`pipe:[…]`)."""
        self._log = log
        self._failure: str | None = None
        self._pipes = [
            os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            for path in [*_pipes(first, descriptors), *_fifos(container)]
        ]
        self._thread = threading.Thread(target=self._watch, daemon=True, name="drained")
        self._thread.start()

    def _watch(self) -> None:
        try:
            deadline, daemon = time.monotonic() + BOUND_S, _daemon()
            quiet_since, before = None, -1
            while quiet_since is None or time.monotonic() < quiet_since + STILL_S:
                size, waiting = _size(self._log), any(map(_held_bytes, self._pipes))
                if size != before or waiting or _is_busy(daemon):
                    quiet_since, before = None, size
                elif quiet_since is None:
                    quiet_since = time.monotonic()
                if time.monotonic() > deadline:
                    if waiting:
                        self._failure = f"Docker has not read what the container printed for {BOUND_S} s"
                    return  # else it is busy with other containers
                time.sleep(LOOK_S)
        except OSError as failed:
            self._failure = f"whether Docker has read all that the container printed can't be seen: {failed}"

    def wait(self) -> None:
        """AgentError if Docker does not come to an end with it."""
        self._thread.join()
        while self._pipes:
            os.close(self._pipes.pop())
        if self._failure is not None:
            raise AgentError(self._failure, "final dump")


def _fifo(container: str, stream: str) -> Path | None:
    """That of the container's first process; those of `docker exec` have other names."""
    names = (f"{container}-{stream}", f"init-{stream}")
    return next((path for name in names if (path := FIFOS / container / name).exists()), None)


def _fifos(container: str) -> list[Path]:
    return [path for stream in STREAMS if (path := _fifo(container, stream)) is not None]


def _pipes(first: int, descriptors: Collection[str]) -> list[Path]:
    """The ends of a container's pipes that its shim has, the parent of its first process."""
    shim = proc.status(first).get("PPid", "0")
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
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def _daemon() -> int | None:
    try:
        return int(PROCESS_ID.read_text())
    except (OSError, ValueError):
        return None


def _is_busy(daemon: int | None) -> bool:
    """Whether one of its threads runs, or waits for a processor or a disk: it may have lines in its memory."""
    if daemon is None:
        return False
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{daemon}/task").iterdir():
            if proc.stat(f"{daemon}/task/{thread.name}")[1][:1] in (["R"], ["D"]):
                return True
    return False
