"""The demonstration: a lab, a Redis under a client's hands, its migration, the proof, and the lab gone again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.workloads import redis
from flows.migrate import migrate
from sealift.host import ssh
from sealift.inventory import lab_inventory
from sealift.lab import lab
from sealift.migration.request import Options
from sealift.network import gateway

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workloads.client import Findings
    from sealift.lab.plan import Kind
    from sealift.model import Report

ADDRESS = "10.77.0.10"
BEFORE_S = AFTER_S = 2


@dataclass(frozen=True)
class Demonstration:
    """What came out: the migration's report and what the client saw of it."""

    report: Report
    client: Findings


def run_demo(kind: Kind, memory_mb: int, *, say: Callable[[str], None]) -> Demonstration:
    """Everything, from nothing to nothing. The lab goes down whatever happens."""
    inventory = lab.up(kind, say=say)
    try:
        gateway.assign(inventory, ADDRESS, "source")
        say(f"starting Redis with {memory_mb} MB of data on the source")
        network = inventory.network.docker_network
        with ssh.connected("source", inventory.host("source")) as source:
            redis.start(source, "redis", ADDRESS, network, memory_mb, say=say)
        with (
            ssh.connected("client", inventory.machine("client")) as host,
            redis.client(host, ADDRESS) as client,
        ):
            say("a client increments a counter over one TCP connection, without pause; migrating")
            time.sleep(BEFORE_S)
            options = Options(evidence=None if inventory.host("destination").vm else "none")
            report = migrate("redis", "source", "destination", options, lab_inventory())
            time.sleep(AFTER_S)
            return Demonstration(report, client.findings())
    finally:
        lab.down()
