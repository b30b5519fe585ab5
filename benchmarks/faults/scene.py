"""What a fault happens to: the hosts of a lab, reached from below, and a migration that is held at its moment."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.faults.migrating import halt_dir
from sealift.errors import CommandFailed
from sealift.lab import lab, namespaced
from sealift.process import run

if TYPE_CHECKING:
    from benchmarks.faults.moments import Moment
    from benchmarks.faults.orchestrator import Orchestrator
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


class Migration(ABC):
    """One migration that is held at a moment. `said` is its outcome, once it has ended by itself."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.said: dict[str, Any] = {}
        shutil.rmtree(halt_dir(), ignore_errors=True)

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether its controller's process has gone."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL of its controller."""

    @abstractmethod
    def cancel(self) -> None:
        """Ask its controller to stop, as whoever runs it does. Returns once that has been heard."""

    def arrive(self) -> bool:
        """Wait until it is held at its moment. False if it has ended before."""
        deadline = time.monotonic() + ARRIVE_S
        while time.monotonic() < deadline:
            if self._says("at"):
                return True
            if self.has_ended():
                return False
            time.sleep(0.01)
        raise CommandFailed(f"the migration did not come to {self.moment.name!r}", step="fault")

    def _says(self, word: str) -> bool:
        place = halt_dir()
        if self.moment.where != "controller":
            pid = namespaced.first_process(self.moment.where, str(lab.lab_dir()))
            place = Path(f"/proc/{pid}/root{HALT}")
        return (place / word).exists()

    def is_leaving(self) -> bool:
        """Whether its controller has begun to put everything away, or has ended."""
        return (halt_dir() / "leaving").exists() or self.has_ended()

    def go_on(self) -> None:
        """Hold it no longer, if it is still there."""
        if self.moment.where == "controller":
            halt_dir().mkdir(exist_ok=True)
            (halt_dir() / "go").touch()
            return
        with suppress(CommandFailed):
            inside(self.moment.where, f"mkdir -p {HALT}; touch {HALT}/go")

    def end(self, timeout_s: float) -> bool:
        """Wait for its end. False, and it is killed, if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self.has_ended():
            if time.monotonic() > deadline:
                self.kill()
                return False
            time.sleep(0.02)
        return True


@dataclass
class Scene:
    """One cell's surroundings: the lab, the migration, Prefect, and what a fault has to remember until it is mended."""

    inventory: Inventory
    migration: Migration
    orchestrator: Orchestrator
    kept: dict[str, str] = field(default_factory=dict)
