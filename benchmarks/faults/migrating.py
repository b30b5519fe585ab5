"""Run a migration in a process of its own, held at one moment: `python -m benchmarks.faults.migrating …`.

Arguments: container, moment, `engine` or `flow` (with Prefect). If the controller itself is held, it writes a file, as
an agent does (`sealift_agent.points`), and goes on when another file appears. Its last line is the outcome as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks import engine
from benchmarks.faults.moments import Moment, moment
from flows import scheduler
from sealift.errors import SealiftError
from sealift.host import agents
from sealift.inventory import lab_inventory
from sealift.lab import lab
from sealift.migration import progress
from sealift.migration.request import Options, Request
from sealift_agent import points
from sealift_agent.protocol import Note, Order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sealift.model import Report, Step


class Holder(progress.Listener):
    """Holds the controller once."""

    def __init__(self, held: Moment) -> None:
        self._held = held
        self._passed = False
        self._lock = threading.Lock()

    def began(self, container: str, step: Step) -> None:  # noqa: ARG002 - there is one
        """See `progress.Listener`."""
        if self._held.where == "controller" and self._held.order is None and step == self._held.step:
            self._halt()

    def leaving(self, container: str) -> None:  # noqa: ARG002 - there is one
        """Report that this process leaves its session."""
        halt_dir().mkdir(exist_ok=True)
        (halt_dir() / "leaving").touch()

    def before(self, role: str, order: Order[Any]) -> None:
        """An agent of that role is about to get the order."""
        if self._held.where != "controller":
            return
        phase = order.phase if isinstance(order, Note) else None
        if self._held.order in {f"{role} {order.NAME}", f"{role} {order.NAME} {phase}"}:
            self._halt()

    def _halt(self) -> None:
        with self._lock:
            passed, self._passed = self._passed, True
        if not passed:
            points.wait(halt_dir())


def halt_dir() -> Path:
    """The directory of the files by which a held controller reports and is told to go on."""
    return lab.lab_dir() / "halt"


@contextmanager
def held(at: Moment) -> Iterator[None]:
    """Hold the migrations of this process at that moment. They report when they leave their session."""
    holder = Holder(at)
    with progress.listening(holder):
        agents.observers.append(holder.before)
        try:
            yield
        finally:
            agents.observers.remove(holder.before)


def _migrate(container: str, driver: str) -> Report:
    options = Options(evidence=None if lab.running().host("destination").vm else "none")
    if driver == "flow":
        scheduler.set_up()
        from flows.ending import run  # noqa: PLC0415 - Prefect takes seconds to import
        from flows.migrate import migrate  # noqa: PLC0415 - as above

        report: Report = run(migrate, container, "source", "destination", options, lab_inventory())
        return report
    return engine.migrate(lab.running(), Request(container, "source", "destination", options))


def main(container: str, name: str, driver: str) -> int:
    """Migrate from the source to the destination of the lab that is up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with held(moment(name)):
            report = _migrate(container, driver)
    except SealiftError as failed:
        print(json.dumps({"failed": str(failed)}))  # noqa: T201 - the outcome
        return 1
    print(json.dumps({"outcome": report.outcome}))  # noqa: T201 - the outcome
    return 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    scheduler.leave(status)
    sys.exit(status)
