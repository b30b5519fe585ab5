"""Make WireGuard's state equal to the record: by the agent, by a program that outlives it, and at each start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from .. import durable
from ..network.allowed import INTERFACE
from ..routes import STATE, Routes

if TYPE_CHECKING:
    from pathlib import Path

    from ..wire import Controller

APPLY_AGAIN_S, APPLY_AT_LEAST_S = 0.5, 30
"""Seconds until WireGuard is told again what it refused, at first and at most."""

KEEP_ON_S, KEEP_ON_PAUSE_S = 3600, 2
"""Seconds for which `keep_on` tries it, and seconds between two attempts."""


class Keeper(threading.Thread):
    """Sets what is recorded in WireGuard until WireGuard has it. A restarted gateway begins at once."""

    def __init__(self, routes: Routes) -> None:
        super().__init__(daemon=True)
        self.routes = routes

    def run(self) -> None:
        """Check again and again. The interval grows while nothing changes."""
        seen: dict[str, str] = {}
        pause_s: float = APPLY_AGAIN_S
        while True:
            time.sleep(pause_s)
            if self.routes.behind:
                with contextlib.suppress(OSError, ValueError):
                    self.routes.restore()
            pause_s = (
                min(pause_s * 2, APPLY_AT_LEAST_S) if seen and seen == self.routes.behind else APPLY_AGAIN_S
            )
            seen = self.routes.behind


def restore_routes(controller: Controller) -> None:  # noqa: ARG001 - it serves nobody
    """`network up` runs this when the gateway starts: WireGuard gets the recorded routes."""
    for name, why in Routes().restore().items():
        print(f"{name}: {why}", file=sys.stderr)  # noqa: T201 - for whoever starts the gateway


def keep_on(controller: Controller) -> None:  # noqa: ARG001 - it serves nobody
    """Outlives an agent whose controller has gone before WireGuard had the recorded routes. Only one runs at a time."""
    routes = Routes()
    with (STATE / "keeping").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        until = time.monotonic() + KEEP_ON_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError):
                if INTERFACE not in routes.restore():
                    return
            time.sleep(KEEP_ON_PAUSE_S)


def leave_keeper(routes: Routes) -> None:
    """Start a program (`keep_on`) that continues after this agent, if WireGuard lacks recorded routes."""
    if INTERFACE not in routes.behind:
        return
    nothing = subprocess.DEVNULL  # a peer that WireGuard does not have is told with that peer's key
    words = [sys.executable, sys.argv[0], "keep"]
    with contextlib.suppress(OSError):
        subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def stay(archive: Path, state: Path = STATE) -> None:
    """Leave this program where a restarted gateway finds it (`restore_routes`)."""
    durable.folder(state)
    content, there = archive.read_bytes(), state / "agent.pyz"
    if not there.exists() or there.read_bytes() != content:
        fresh = there.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(content)
        fresh.rename(there)
