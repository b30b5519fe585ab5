"""Run one cell of the matrix: migrate a Redis that a client uses, break something, mend it, recover, judge."""

from __future__ import annotations

import contextlib
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.faults import judge
from benchmarks.faults.controllers import controller
from benchmarks.faults.faults import ROLES
from benchmarks.faults.hosts import inside, patience
from benchmarks.faults.moments import NAMES
from benchmarks.faults.trial import Trial
from benchmarks.measure.origin import code
from benchmarks.testbed import DOCKER_HOSTS
from benchmarks.workloads import redis
from sealift.errors import SealiftError
from sealift.host import ssh
from sealift.host.agents import Agent
from sealift.lab import images, lab
from sealift.migration import recovery
from sealift.network import gateway
from sealift_agent.points import HOLD
from sealift_agent.protocol import ListUnfinished

if TYPE_CHECKING:
    from benchmarks.faults.faults import Cell
    from benchmarks.faults.orchestrator import Orchestrator
    from sealift.inventory import Inventory

CONTAINER = "redis"
MEMORY_MB = 10
END_S = 90
"""Seconds that a migration may take to end after a fault. Then its administrator ends it."""

RECOVER_S = 150
"""Seconds. Without a controller the gateway's agent answers the hosts for two minutes, and keeps the migration until
then."""

AFTER_S = 0.5

PAUSE_S = 0.01
"""Seconds between two increments. Without a pause the client would use a processor as long as a cell waits, which
can be two minutes. With two milliseconds the clients of four cells, and their tunnels, took 40 % of two
processors."""


@dataclass(frozen=True)
class Verdict:
    """The result of a cell. `wrong` is empty if everything held.

    `said` has what the migration and `recover` printed.
    """

    cell: str
    wrong: tuple[str, ...]
    owner: str | None
    said: tuple[str, ...]
    seconds: float
    code: str = ""
    """The code that was tried: see `origin.code`. Empty in files from before it was recorded."""

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return not self.wrong


def run(cell: Cell, orchestrator: Orchestrator) -> Verdict:
    """Try one cell in the running lab. If everything held, the lab can be used for another cell."""
    began = time.monotonic()
    said: list[str] = []
    owner: list[str | None] = [None]
    try:
        wrong = _try(lab.running(), cell, orchestrator, said, owner)
    except SealiftError as broken:
        wrong = [f"the cell could not be tried to its end: {broken}"]
    seconds = time.monotonic() - began
    return Verdict(cell.name, tuple(wrong), owner[0], tuple(dict.fromkeys(said)), seconds, code())


def _try(
    inventory: Inventory, cell: Cell, orchestrator: Orchestrator, said: list[str], owner: list[str | None]
) -> list[str]:
    # Not an address that was there lately, since hosts remember for a minute at which port an address was.
    network = inventory.network.workloads
    address = str(network[network.num_addresses // 2 + secrets.randbelow(network.num_addresses // 2 - 2)])
    if cell.moment.name == "sync":
        inside("destination", f"docker image rm -f {images.REDIS.tag} >/dev/null 2>&1", check=False)
    with ThreadPoolExecutor() as pool:
        before = dict(zip(judge.INSPECTED, pool.map(judge.state, judge.INSPECTED), strict=True))
    gateway.assign(inventory, address, "source")
    with ssh.connected("source", inventory.machine("source")) as source:
        redis.start(
            source, CONTAINER, address, inventory.network.docker_network, MEMORY_MB, say=lambda _: None
        )
    if cell.fault.power:
        judge.keep(CONTAINER, "source")
    with (
        ssh.connected("client", inventory.machine("client")) as host,
        redis.client(host, address, PAUSE_S) as client,
    ):
        with controller(CONTAINER, cell.moment, cell.fault.driver, orchestrator) as migration:
            wrong = _break(Trial(inventory, migration, orchestrator), cell, said)
        route = gateway.routes(inventory).get(address)
        owner[0] = route.host if route else None
        # A destination that loses its power before it can have the container may get it when it is back.
        there = cell.fault.power == "source" or NAMES.index(cell.moment.name) >= NAMES.index("armed")
        lost = owner[0] is not None and owner[0] == cell.fault.power and there
        wrong += judge.one_live_copy(CONTAINER, owner[0], lost=lost)
        if lost:
            inside(str(owner[0]), f"docker start {CONTAINER} >/dev/null", check=False)
        kept = judge.counter(address)
        if cell.fault.power and owner[0] is not None:
            wrong += judge.kept(CONTAINER, owner[0])
        time.sleep(AFTER_S)
        found = client.findings() if kept is not None and not lost else None
    if kept is None:
        wrong.append("it is not reachable")
    elif found is not None:
        wrong += judge.acknowledged(found, judge.counter(address))
    for name in DOCKER_HOSTS:
        inside(name, f"docker rm -fv {CONTAINER} >/dev/null 2>&1", check=False)
    for name in ROLES:
        inside(name, f"rm -rf {HOLD}", check=False)
    if cell.fault.power:
        judge.write_back(*judge.USUAL)
    gateway.release(inventory, address)
    return wrong + judge.leftovers(before)


def _break(trial: Trial, cell: Cell, said: list[str]) -> list[str]:
    """From the beginning of the migration to the end of its recovery."""
    fault, migration = cell.fault, trial.migration
    if not migration.arrive():
        return [f"the migration ended before {cell.moment.name}: {migration.said or _log()}"]
    wrong = []
    fault.inject(trial)
    migration.go_on()
    if fault.mend is not None and not fault.lasts:
        fault.mend(trial)
        migration.go_on()  # a machine that was without power has lost the file that lets it go on
    if not migration.end(END_S):
        wrong.append(f"the migration did not end within {patience(END_S):.0f} s")
    said.append(str(migration.said or f"died: {_log()}"))
    try:
        if fault.lasts:
            with contextlib.suppress(SealiftError):
                said += [one.sentence() for one in recovery.recover(trial.inventory)]
    finally:
        if fault.lasts and fault.mend is not None:
            fault.mend(trial)
    return wrong + _recover(trial, said)


def _recover(trial: Trial, said: list[str]) -> list[str]:
    """Recover until nothing is left unfinished."""
    deadline = time.monotonic() + patience(RECOVER_S)
    while True:
        ended = recovery.recover(trial.inventory)
        said += [one.sentence() for one in ended]
        with (
            ssh.connected("gateway", trial.inventory.gateway) as connection,
            Agent(connection, "gateway") as agent,
        ):
            left = agent.call(ListUnfinished())
        if not left:
            return []
        if time.monotonic() > deadline:
            return [
                f"{len(left)} migration is still on record after {patience(RECOVER_S):.0f} s: {said[-1:]}"
            ]
        time.sleep(0.5)  # agents that still live end it among themselves


def _log() -> str:
    return (lab.lab_dir() / "migration.log").read_text(errors="replace").strip()[-300:]
