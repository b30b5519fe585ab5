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
from benchmarks.testbed import DOCKER_HOSTS
from sealift.errors import CommandFailed, SealiftError
from sealift.host import ssh
from sealift.lab import lab, namespaced
from sealift.process import run
from sealift_agent.points import HOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.faults.moments import Moment
    from benchmarks.faults.orchestrator import Orchestrator
    from sealift.inventory import Inventory
    from sealift.process import Completed

ARRIVE_S = 60
BECOMING_S = 2
"""While it boots, a host's first process becomes one program after the other."""

EMULATED = 5
"""How much longer everything may take where hosts are VMs."""


def patience(seconds: float) -> float:
    """How long to wait for something, in the lab that is up, that takes so long at most among namespaced hosts."""
    return seconds * EMULATED if is_virtual(lab.running()) else seconds


def is_virtual(inventory: Inventory) -> bool:
    """Whether source and destination are VMs."""
    return inventory.lab is not None and inventory.lab.kind == "vm"


def inside(host: str, script: str, *arguments: str, check: bool = True, timeout_s: float = 60) -> Completed:
    """Run a shell script on a host: see `inside_run`."""
    return inside_run(host, ["sh", "-c", script, "sh", *arguments], check=check, timeout_s=timeout_s)


def inside_run(
    host: str, words: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout_s: float = 60
) -> Completed:
    """Run a command on a host: a namespaced one from below, so that no network, no login, no agent is needed for it.

    On a VM as its administrator, over SSH. HostUnreachable while it has no power.
    """
    inventory = lab.running()
    if is_virtual(inventory) and host in DOCKER_HOSTS:
        with ssh.connected(host, inventory.machine(host)) as connection:
            given = (stdin or "").encode()
            return connection.run(words, stdin=given, check=check, timeout_s=patience(timeout_s))
    entered = ["nsenter", "--all", "--target", str(_first(host)), *words]
    return run(entered, stdin=stdin, check=check, timeout_s=timeout_s)


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
        self._in_vm = moment.where in DOCKER_HOSTS and is_virtual(lab.running())
        shutil.rmtree(halt_dir(), ignore_errors=True)
        if moment.where != "controller":
            inside(moment.where, f"rm -rf {HOLD}; mkdir -p {HOLD}; touch {HOLD}/{moment.name}")

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
        """Whether its controller has begun to put everything away, or has ended."""
        return (halt_dir() / "leaving").exists() or self.has_ended()

    def go_on(self) -> None:
        """Hold it no longer, if it is still there."""
        if self.moment.where == "controller":
            halt_dir().mkdir(exist_ok=True)
            (halt_dir() / "go").touch()
            return
        with suppress(SealiftError):
            inside(self.moment.where, f"mkdir -p {HOLD}; touch {HOLD}/go")

    def end(self, timeout_s: float) -> bool:
        """Wait for its end. False, and it is killed, if that takes too long."""
        deadline = time.monotonic() + patience(timeout_s)
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
