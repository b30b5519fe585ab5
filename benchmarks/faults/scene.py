"""What a fault happens to: the hosts of a lab, reached from below, and a migration that is held at its moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.errors import CommandFailed
from sealift.lab import lab, namespaced
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.faults.moments import Moment
    from sealift.inventory import Inventory
    from sealift.process import Completed

HALT = "/run/sealift/halt"
ARRIVE_S = 60
BECOMING_S = 2
"""While it boots, a host's first process becomes one program after the other."""


def inside(host: str, script: str, *arguments: str, check: bool = True, timeout_s: float = 60) -> Completed:
    """Run a shell script on a namespaced host from below: no network, no login, no agent is needed for it."""
    words = ["nsenter", "--all", "--target", str(_first(host)), "sh", "-c", script, "sh", *arguments]
    return run(words, check=check, timeout_s=timeout_s)


def _first(host: str) -> int:
    deadline = time.monotonic() + BECOMING_S
    while (pid := namespaced.first_process(host, str(lab.lab_dir()))) is None:
        if time.monotonic() > deadline:
            raise CommandFailed("it does not run", host=host, step="fault")
        time.sleep(0.02)
    return pid


@dataclass
class Migration:
    """A migration in a process of its own. `said` is its outcome, once it has ended by itself."""

    moment: Moment
    process: subprocess.Popen[str]
    said: dict[str, Any] = field(default_factory=dict)
    _at: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def of(cls, container: str, moment: Moment, driver: str, log: Path) -> Iterator[Migration]:
        """Start it. At the end of the block it has ended, one way or another."""
        command = [sys.executable, "-m", "benchmarks.faults.migrating", container, moment.name, driver]
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        migration = cls(moment, process)
        reader = threading.Thread(target=migration._read, daemon=True)
        reader.start()
        try:
            yield migration
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join(5)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if line == "at\n":
                self._at.set()
            elif line.startswith("{"):
                self.said = json.loads(line)

    def arrive(self) -> bool:
        """Wait until it is held at its moment. False if it has ended before."""
        deadline = time.monotonic() + ARRIVE_S
        while time.monotonic() < deadline:
            if self._is_there():
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        raise CommandFailed(f"the migration did not come to {self.moment.name!r}", step="fault")

    def _is_there(self) -> bool:
        if self.moment.where == "controller":
            return self._at.is_set()
        pid = namespaced.first_process(self.moment.where, str(lab.lab_dir()))
        return Path(f"/proc/{pid}/root{HALT}/at").exists()

    def go_on(self) -> None:
        """Hold it no longer, if it is still there."""
        if self.moment.where == "controller":
            with suppress(OSError):
                print(file=self.process.stdin, flush=True)
            return
        with suppress(CommandFailed):
            inside(self.moment.where, f"mkdir -p {HALT}; touch {HALT}/go")

    def end(self, timeout_s: float) -> bool:
        """Wait for its end. False, and it is killed, if that takes too long."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        return True


@dataclass
class Scene:
    """One cell's surroundings: the lab, the migration, and what a fault has to remember until it is mended."""

    inventory: Inventory
    migration: Migration
    kept: dict[str, str] = field(default_factory=dict)
