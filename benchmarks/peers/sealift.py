"""Sealift itself, by its own flow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import containers
from benchmarks.peers.system import Move
from benchmarks.testbed import DESTINATION, DOCKER_HOSTS, SOURCE
from benchmarks.workloads import workload as workloads
from sealift import inventory as inventories
from sealift.migration.request import Options
from sealift.model import Report, Step, Strategy

if TYPE_CHECKING:
    from benchmarks.peers.system import Wish
    from benchmarks.testbed import Testbed
    from benchmarks.workloads.workload import Workload
    from sealift.inventory import Inventory

STEP_COLUMNS = {
    "preflight": "preflight_ms",
    "attest": "attest_ms",
    "provision keys": "provision_ms",
    "sync": "sync_ms",
    "pre-dump": "pre_dump_ms",
    "final dump": "final_dump_ms",
    "transfer": "transfer_ms",
    "restore": "restore_ms",
    "network switch": "network_switch_ms",
    "finish": "finish_ms",
}
"""Columns of the steps, by their names in a report. A step that a report has and this table lacks is a mistake."""


class Sealift:
    """One migration, as an owner would start it."""

    def prepare(self, testbed: Testbed, workload: Workload) -> None:
        """Nothing: what Sealift needs at the destination it brings, and that counts."""

    def start(self, testbed: Testbed, name: str, address: str, workload: Workload) -> str:
        """Under Docker, with its default runtime."""
        return workloads.start(_runner(testbed, SOURCE), name, address, workload)

    def move(self, testbed: Testbed, name: str, address: str, wish: Wish) -> Move:  # noqa: ARG002 - the container knows it
        """Run the flow."""
        with tempfile.TemporaryDirectory(prefix="sealift-bench-") as folder:
            chosen = Path(folder) / inventories.FILE_NAME
            inventories.save(plain(testbed.inventory) if wish.plain else testbed.inventory, chosen)
            report = wish.migrate(
                name,
                SOURCE,
                DESTINATION,
                Options(
                    strategy=Strategy(wish.strategy),
                    # All that the inventory says; where it says nothing, nothing has to be asked for by name.
                    evidence=None if testbed.inventory.host(DESTINATION).vm else "none",
                ),
                chosen,
            )
        return Move(report.strategy.value, facts(report), report)

    def clean(self, testbed: Testbed, name: str) -> None:
        """Remove it on both hosts."""
        for host in DOCKER_HOSTS:
            _runner(testbed, host).remove(name)


def facts(report: Report) -> dict[str, Any]:
    """A report as columns of a row."""
    steps = {STEP_COLUMNS[record.step.value]: record.duration_ms for record in report.steps}
    return {
        **steps,
        "frozen_ms": report.frozen_ms,
        "cut_ms": report.cut_ms,
        "stall_ms": report.stall_ms,
        "longest_wait_ms": report.longest_wait_ms,
        "complete_ms": report.complete_ms,
        "total_ms": report.total_ms,
        "criu_dump_ms": report.criu_dump_ms,
        "criu_restore_ms": report.criu_restore_ms,
        "rounds": len(report.rounds),
        "pages_bytes": report.memory_bytes,
        "last_bytes": report.last_bytes,
        "metadata_bytes": report.metadata_bytes,
        "image_bytes": report.image_bytes,
        "file_bytes": report.file_bytes,
        "sampled_bytes": report.estimate.sampled_bytes if report.estimate else 0,
        "evidence": report.evidence.value,
        "cutover_unix": report.step(Step.FINAL_DUMP).started.timestamp(),
        "outcome": report.outcome,
    }


def plain(inventory: Inventory) -> Inventory:
    """The same machines with their data path beside the tunnel: what is sent between them is not encrypted."""

    def bare(host: inventories.Host) -> inventories.Host:
        return host.model_copy(update={"tunnel_address": host.address})

    return inventory.model_copy(
        update={
            "hosts": {name: bare(host) for name, host in inventory.hosts.items()},
            "gateway": bare(inventory.gateway),
        }
    )


def _runner(testbed: Testbed, host: str) -> containers.Docker:
    return containers.Docker(testbed[host], testbed.inventory.network, say=testbed.say)
