"""The trial of one cell: a migration that is held at its moment, and everything that belongs to it."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.faults.hosts import inside, is_virtual, patience
from benchmarks.faults.migrating import halt_dir
from benchmarks.testbed import DOCKER_HOSTS
from sealift.errors import CommandFailed, SealiftError
from sealift.lab import lab, namespaced
from sealift_agent.points import HOLD

if TYPE_CHECKING:
    from benchmarks.faults.moments import Moment
    from benchmarks.faults.orchestrator import Orchestrator
    from sealift.inventory import Inventory

ARRIVE_S = 60


class Migration(ABC):
    """One migration that is held at a moment. `said` is its outcome, if it has ended by itself."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.said: dict[str, Any] = {}
        self._in_vm = moment.where in DOCKER_HOSTS and is_virtual(lab.running())
        shutil.rmtree(halt_dir(), ignore_errors=True)
        if moment.where != "controller":
            inside(moment.where, f"rm -rf {HOLD}; mkdir -p {HOLD}; touch {HOLD}/{moment.name}")

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether its controller's process has gone."""

    @abstractmethod
    def kill(self) -> None:
        """Kill its controller (SIGKILL)."""

    @abstractmethod
    def cancel(self) -> None:
        """Ask its controller to stop, as its user does. Returns when the controller has noticed."""

    def arrive(self) -> bool:
        """Wait until it is held at its moment. False if it has ended before."""
        deadline = time.monotonic() + patience(ARRIVE_S)
        while time.monotonic() < deadline:
            if self._says("at"):
                return True
            if self.has_ended():
                return False
            time.sleep(0.01)
        raise CommandFailed(f"the migration did not come to {self.moment.name!r}", step="fault")

    def _says(self, word: str) -> bool:
        if self.moment.where == "controller":
            return (halt_dir() / word).exists()
        if self._in_vm:
            return inside(self.moment.where, f"test -e {HOLD}/{word}", check=False).status == 0
        pid = namespaced.first_process(self.moment.where, str(lab.lab_dir()))
        return Path(f"/proc/{pid}/root{HOLD}/{word}").exists()

    def is_leaving(self) -> bool:
        """Whether its controller has begun to clean up, or has ended."""
        return (halt_dir() / "leaving").exists() or self.has_ended()

    def go_on(self) -> None:
        """Let it go on, if it still exists."""
        if self.moment.where == "controller":
            halt_dir().mkdir(exist_ok=True)
            (halt_dir() / "go").touch()
            return
        with suppress(SealiftError):
            inside(self.moment.where, f"mkdir -p {HOLD}; touch {HOLD}/go")

    def end(self, timeout_s: float) -> bool:
        """Wait for its end. If that takes too long, kill it and return False."""
        deadline = time.monotonic() + patience(timeout_s)
        while not self.has_ended():
            if time.monotonic() > deadline:
                self.kill()
                return False
            time.sleep(0.02)
        return True


@dataclass
class Trial:
    """The trial of one cell: the lab, the migration, Prefect, and what a fault has to remember until it is mended."""

    inventory: Inventory
    migration: Migration
    orchestrator: Orchestrator
    kept: dict[str, str] = field(default_factory=dict)
