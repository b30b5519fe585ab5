"""A whole VM moved by QEMU's own live migration. Its rows say why it was not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from benchmarks.peers.system import Absent

if TYPE_CHECKING:
    from benchmarks.peers.system import Move, Wish
    from benchmarks.testbed import Testbed
    from benchmarks.workloads.workload import Workload


class WholeVm:
    """Absent."""

    def prepare(self, testbed: Testbed, workload: Workload) -> NoReturn:  # noqa: ARG002 - it is absent whatever the work
        """Say why."""
        if testbed.lab_kind == "netns":
            raise Absent("the hosts of this lab are namespaces of one kernel: there is no VM to migrate")
        raise Absent(
            "the lab's VMs have disks and a network of their own host: QEMU has no peer to send them to"
        )

    def start(self, testbed: Testbed, name: str, address: str, workload: Workload) -> str:
        """Never called: `prepare` has raised."""
        raise NotImplementedError

    def move(self, testbed: Testbed, name: str, address: str, wish: Wish) -> Move:
        """Never called: `prepare` has raised."""
        raise NotImplementedError

    def clean(self, testbed: Testbed, name: str) -> None:
        """Nothing was started."""
