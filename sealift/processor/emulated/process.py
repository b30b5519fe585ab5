"""Start and end an emulated processor, for tests and the `netns` lab. A provider keeps its own records.

The sockets are made before the process, so a client that connects at once waits instead of failing.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sealift
from sealift.processor.emulated.client import EmulatedProcessor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

END_TIMEOUT_S = 5


@contextmanager
def listening(*paths: Path) -> Iterator[list[socket.socket]]:
    """Listening unix sockets that a child inherits. Only their owner can connect. Old ones are replaced."""
    sockets = []
    before = os.umask(0o177)
    try:
        for path in paths:
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            sockets.append(listener)
            listener.bind(str(path))
            listener.listen()
            listener.set_inheritable(True)
    finally:
        os.umask(before)
    try:
        yield sockets
    finally:
        for listener in sockets:
            listener.close()


def emulator_words(
    state: Path,
    sockets: list[socket.socket],
    *,
    authority: Path | None = None,
    profile: Path | None = None,
    terminate: bool = False,
) -> list[str]:
    """The command line. With `-P`, the working directory is not in the module path."""
    host, guest = (f"fd:{each.fileno()}" for each in sockets)
    words = [sys.executable, "-P", "-m", "sealift.processor.emulated"]
    words += ["--state", str(state), "--host", host, "--guest", guest]
    for name, value in (("--authority", authority), ("--profile", profile)):
        if value is not None:
            words += [name, str(value)]
    return [*words, "--terminate"] if terminate else words


def emulator_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The module path with which the child finds this package from any working directory."""
    paths = [str(Path(sealift.__file__).parents[1]), *filter(None, [given.get("PYTHONPATH")])]
    return {**given, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def emulated_processor(
    directory: Path,
    state: Path,
    *,
    authority: Path | None = None,
    profile: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[EmulatedProcessor]:
    """A running emulated processor with its sockets `host` and `guest` and its log in `directory`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    host, guest = directory / "host", directory / "guest"
    with listening(host, guest) as sockets, (directory / "processor.log").open("ab") as log:
        process = subprocess.Popen(
            emulator_words(state, sockets, authority=authority, profile=profile),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[each.fileno() for each in sockets],
            env=emulator_environment(environment),
            start_new_session=True,
        )
    try:
        yield EmulatedProcessor(host, guest)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
        process.kill()
        process.wait()
        host.unlink(missing_ok=True)
        guest.unlink(missing_ok=True)
