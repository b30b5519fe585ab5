"""VMs lose their power in a migration: what was not written through to their disks is gone, and one copy stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.faults import cell as trial
from benchmarks.faults.faults import cells
from benchmarks.faults.orchestrator import Orchestrator
from benchmarks.testbed import DOCKER_HOSTS
from sealift.host import ssh
from sealift.lab import lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.whole, pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True)
def afterwards(hosts: Hosts) -> Iterator[None]:
    """Connections to the hosts as they are then: those that lost their power had others."""
    yield
    hosts.inventory = lab.running()
    for name in DOCKER_HOSTS:
        hosts.connections[name].close()
        hosts.connections[name] = ssh.connect(name, hosts.inventory.machine(name))


@pytest.mark.parametrize(
    "name", ["power:destination@restored", "power:destination@committed", "power:source@frozen"]
)
def test_one_copy_stays_and_nothing_else(name: str) -> None:
    (cell,) = cells([name], "vm")
    with Orchestrator.ready() as orchestrator:
        verdict = trial.run(cell, orchestrator)
    print(verdict)
    assert verdict.ok, verdict
