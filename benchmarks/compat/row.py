"""Try one row: start the program, ask `check`, move it there, back and there, and look at what its client saw."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks import engine
from benchmarks.compat import stock
from benchmarks.compat.images import IMAGES
from benchmarks.measure.origin import code
from benchmarks.script import Script
from benchmarks.testbed import CLIENT, DESTINATION, DOCKER_HOSTS, SOURCE
from sealift.errors import Refused, SealiftError
from sealift.migration.check import check
from sealift.migration.checks.finding import Answer
from sealift.migration.request import Options, Request
from sealift.model import Strategy

if TYPE_CHECKING:
    from benchmarks.compat.program import Program
    from benchmarks.testbed import Testbed
    from sealift.model import Report

CONTAINER = "stock"
LEGS = ((SOURCE, DESTINATION), (DESTINATION, SOURCE), (SOURCE, DESTINATION))
BETWEEN_S = 0.7
"""The client goes on for so long before, between and after the moves."""

MOVED, REFUSED, FAILED, CLIENT_ERROR, UNTRIED = "moved", "refused", "failed", "client error", "not started"
"""How a row ends. `not started`: the program or its client did not come up, so that it says nothing of Sealift."""


@dataclass(frozen=True)
class Row:
    """What came of one program with one strategy on one pair of Dockers."""

    program: str
    kind: str
    version: str
    strategy: str
    docker: str
    outcome: str
    check: str
    """`yes` or `no`: what `sealift check` says before the first move."""

    reason: str = ""
    """Why it did not move, or what the client saw."""

    moves: int = 0
    memory_bytes: int = 0
    processes: int = 0
    predicted_ms: tuple[float, ...] = ()
    frozen_ms: tuple[float, ...] = ()
    longest_gap_ms: float = 0
    operations: int = 0
    seconds: float = 0
    code: str = ""

    @property
    def key(self) -> str:
        """What distinguishes it from all other rows."""
        return key(self.program, self.strategy, self.docker)

    @property
    def check_is_right(self) -> bool:
        """Whether `check` has said what came: no `yes` that failed, no `no`."""
        return (self.check == "yes") == (self.outcome == MOVED)


def key(program: str, strategy: str, docker: str) -> str:
    """The name of a row."""
    return f"{program}@{strategy}@{docker}"


@dataclass
class _Trial:
    """What has been found so far."""

    program: Program
    strategy: str
    docker: str
    found: dict[str, Any] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    def row(self, outcome: str, seconds: float) -> Row:
        predictions = [
            report.estimate.of(report.strategy) if report.estimate else None for report in self.reports
        ]
        return Row(
            program=self.program.name,
            kind=self.program.kind,
            strategy=self.strategy,
            docker=self.docker,
            outcome=outcome,
            seconds=round(seconds, 1),
            moves=len(self.reports),
            predicted_ms=tuple(round(one.freeze_ms, 1) if one else 0.0 for one in predictions),
            frozen_ms=tuple(round(report.frozen_ms, 1) for report in self.reports),
            code=code(),
            **{"version": "", "check": "", **self.found},
        )


def run(program: Program, strategy: str, docker: str, testbed: Testbed) -> Row:
    """Try one row in a running lab. Nothing of it is left."""
    began = time.monotonic()
    trial = _Trial(program, strategy, docker)
    network = testbed.inventory.network.workloads
    # Not an address that was there lately, since hosts remember for a minute at which port an address was.
    address = str(network[network.num_addresses // 2 + secrets.randbelow(network.num_addresses // 2 - 2)])
    _remove(testbed)  # of a run that was killed
    testbed.assign(address, SOURCE)
    try:
        outcome = _try(trial, address, testbed)
    finally:
        _remove(testbed)
        testbed.release(address)
    return trial.row(outcome, time.monotonic() - began)


def _remove(testbed: Testbed) -> None:
    for host in DOCKER_HOSTS:
        testbed[host].run(["docker", "rm", "--force", "--volumes", CONTAINER], check=False, timeout_s=120)


def _try(trial: _Trial, address: str, testbed: Testbed) -> str:
    program, found = trial.program, trial.found
    image, packages = program.image, IMAGES[program.image]
    try:
        for host in DOCKER_HOSTS:
            tag = stock.provide(testbed[host], image, packages, say=testbed.say)
        _start(program, tag, address, testbed)
        found["version"] = (
            testbed[SOURCE]
            .run(["docker", "exec", CONTAINER, "dpkg-query", "-W", "-f", "${Version}", program.package])
            .stdout
        )
        client = _client(program, address, testbed)
        with client:
            return _moves(trial, client, testbed)
    except (SealiftError, TimeoutError) as broken:
        found["reason"] = f"{broken!r}; it printed: {_printed(testbed)}"
        return UNTRIED


def _start(program: Program, tag: str, address: str, testbed: Testbed) -> None:
    network = ["--network", testbed.inventory.network.docker_network, "--ip", address]
    command = ["docker", "run", "--detach", "--name", CONTAINER, *network, *program.settings, tag]
    testbed[SOURCE].run([*command, "/bin/sh", "-c", program.start], timeout_s=120)


def _client(program: Program, address: str, testbed: Testbed) -> Script:
    settings = json.dumps({**program.talk, "address": address, "port": program.port})
    beside = ["workloads/clients/responses.py"]
    names = ("conversations", "talk", "databases", "names", "queues", "sessions")
    beside += [f"compat/clients/{name}.py" for name in names]
    return Script(testbed[CLIENT], "benchmarks", "compat/clients/watch.py", settings, beside=beside)


def _moves(trial: _Trial, client: Script, testbed: Testbed) -> str:
    found, inventory = trial.found, testbed.inventory
    time.sleep(BETWEEN_S)
    checked = check(inventory, Request(CONTAINER, SOURCE, DESTINATION, _options(testbed, DESTINATION, trial)))
    against = [str(finding) for finding in checked.findings if finding.answer is Answer.NO]
    found["check"] = "yes" if checked.movable else "no"
    found["memory_bytes"] = checked.estimate.memory_bytes
    listed = testbed[SOURCE].run(["docker", "top", CONTAINER, "-o", "pid"]).stdout.splitlines()
    found["processes"] = len(listed) - 1
    outcome = MOVED
    try:
        for source, destination in LEGS:
            request = Request(CONTAINER, source, destination, _options(testbed, destination, trial))
            trial.reports.append(engine.migrate(inventory, request))
            time.sleep(BETWEEN_S)
    except Refused as refused:
        outcome, found["reason"] = REFUSED, "; ".join(against) or str(refused)
    except SealiftError as failed:
        outcome, found["reason"] = FAILED, str(failed)
    try:
        seen = client.end()
    except (SealiftError, TimeoutError) as lost:
        found["reason"] = "; ".join(filter(None, [found.get("reason", ""), f"the client: {lost!r}"]))
        return CLIENT_ERROR if outcome == MOVED else outcome
    found["operations"] = seen["operations"]
    found["longest_gap_ms"] = round(seen["longest_gap_ms"] or 0, 1)
    wrong = [*([seen["error"]] if seen["error"] else []), *seen["faults"]]
    if wrong:
        found["reason"] = "; ".join(filter(None, [found.get("reason", ""), f"the client: {wrong[0]}"]))
        return CLIENT_ERROR if outcome == MOVED else outcome
    return outcome


def _options(testbed: Testbed, destination: str, trial: _Trial) -> Options:
    # All that the inventory says; where it says nothing, nothing has to be asked for by name.
    return Options(
        strategy=Strategy(trial.strategy),
        evidence=None if testbed.inventory.host(destination).vm else "none",
    )


def _printed(testbed: Testbed) -> str:
    done = [
        testbed[host].run(["docker", "logs", "--tail", "5", CONTAINER], check=False) for host in DOCKER_HOSTS
    ]
    return " ".join(f"{each.stdout} {each.stderr}" for each in done if each.status == 0).strip()[-500:]
