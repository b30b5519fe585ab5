"""The controller of a migration of the matrix: a process of its own, or a worker of Prefect's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.faults.moments import HELD_AT
from benchmarks.faults.trial import Migration
from sealift.errors import CommandFailed
from sealift.inventory import lab_inventory
from sealift.lab import lab

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.faults.moments import Moment
    from benchmarks.faults.orchestrator import Orchestrator

BEGIN_S = 90
HEARD_S = 40
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class InProcess(Migration):
    """A process of its own, as on a command line: by the engine alone, or as a flow."""

    def __init__(self, moment: Moment, process: subprocess.Popen[str]) -> None:
        super().__init__(moment)
        self._process = process

    @classmethod
    @contextmanager
    def of(
        cls,
        container: str,
        moment: Moment,
        driver: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[InProcess]:
        """Start it. It has ended at the end of the block."""
        command = [sys.executable, "-m", "benchmarks.faults.migrating", container, moment.name, driver]
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env=environment,
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
        for line in self._process.stdout or ():
            if line.startswith("{"):
                self.said = json.loads(line)

    def has_ended(self) -> bool:
        """See `Migration`."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """See `Migration`."""
        self._process.kill()
        self._process.wait()

    def cancel(self) -> None:
        """SIGTERM."""
        self._process.terminate()


class InWorker(Migration):
    """A run of the deployment `migrate`, by a worker."""

    def __init__(self, moment: Moment, orchestrator: Orchestrator, run: str) -> None:
        super().__init__(moment)
        self._orchestrator = orchestrator
        self._run = run
        self._pid: int | None = None

    @classmethod
    @contextmanager
    def of(cls, container: str, moment: Moment, orchestrator: Orchestrator) -> Iterator[InWorker]:
        """Request the run and wait until the worker has begun it. It has ended at the end of the block."""
        parameters = {
            "container": container,
            "source": "source",
            "destination": "destination",
            "inventory": str(lab_inventory()),
            "options": {"evidence": None if lab.running().host("destination").vm else "none"},
        }
        deployment = orchestrator.worker_deployment()
        run = orchestrator.ask(
            f"/deployments/{deployment}/create_flow_run",
            state={"type": "SCHEDULED"},
            parameters=parameters,
            job_variables={"env": {HELD_AT: moment.name}},
        )
        migration = cls(moment, orchestrator, str(run["id"]))
        try:
            migration._begin()
            yield migration
        finally:
            migration.kill()

    def _begin(self) -> None:
        deadline = time.monotonic() + BEGIN_S
        while time.monotonic() < deadline:
            seen = self._seen()
            if seen["infrastructure_pid"]:
                self._pid = int(seen["infrastructure_pid"].rpartition(":")[2])
                return
            time.sleep(0.2)
        raise CommandFailed(f"no worker has begun the run: {self._orchestrator.log()}", step="fault")

    def _seen(self) -> dict[str, Any]:
        found: dict[str, Any] = self._orchestrator.ask(f"/flow_runs/{self._run}", "GET")
        return found

    def has_ended(self) -> bool:
        """See `Migration`. The run also has a final state, so its worker has finished with it."""
        if Path(f"/proc/{self._pid}").exists():
            return False
        state = self._seen()["state"]
        self.said = {"run": state["name"], "message": state["message"]}
        return state["type"] in ENDED

    def kill(self) -> None:
        """See `Migration`."""
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def cancel(self) -> None:
        """Do what the button in Prefect's UI does: the worker is told, and stops the run."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        answer = self._orchestrator.ask(f"/flow_runs/{self._run}/set_state", state=state, force=True)
        if answer["status"] != "ACCEPT":
            raise CommandFailed(f"the run can't be cancelled: {answer}", step="fault")
        deadline = time.monotonic() + HEARD_S
        while not self.is_leaving():
            if time.monotonic() > deadline:
                raise CommandFailed(f"the run was not told: {self._orchestrator.log()}", step="fault")
            time.sleep(0.05)


@contextmanager
def controller(
    container: str, moment: Moment, driver: str, orchestrator: Orchestrator
) -> Iterator[Migration]:
    """Start a migration by that driver: `engine`, `flow` (both in a process of its own) or `worker`."""
    if driver == "worker":
        with InWorker.of(container, moment, orchestrator) as run:
            yield run
        return
    environment = None
    if driver == "flow":
        orchestrator.serve()
        environment = orchestrator.environment
    log = lab.lab_dir() / "migration.log"
    with InProcess.of(container, moment, driver, log, environment) as process:
        yield process
