"""A whole VM moved by QEMU's own live migration: operating system, Docker, workload and all.

Both QEMUs are on one machine and share the disks, and what is between them is a socket without a cipher: a path faster
than any network, which favours this peer. The VM keeps its addresses, so nothing is switched.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from benchmarks.peers import containers
from benchmarks.peers.system import Absent, Move
from benchmarks.testbed import SOURCE
from benchmarks.workloads import workload as workloads
from sealift.host import ssh
from sealift.lab import lab
from sealift.lab.layout import PROVIDER

if TYPE_CHECKING:
    from benchmarks.peers.system import Wish
    from benchmarks.testbed import Testbed
    from benchmarks.workloads.workload import Workload

MOVE_TIMEOUT_S = 900


class WholeVm:
    """The source's VM, moved from one QEMU into another."""

    def prepare(self, testbed: Testbed, workload: Workload) -> None:  # noqa: ARG002 - the VM carries any work
        """Nothing is needed but VMs, and a provider whose monitor can be asked."""
        if testbed.lab_kind != "vm":
            raise Absent(f"the hosts of a {testbed.lab_kind} lab are no VMs of which QEMU could be asked")

    def start(self, testbed: Testbed, name: str, address: str, workload: Workload) -> str:
        """Under Docker, in the VM."""
        return workloads.start(_runner(testbed), name, address, workload)

    def move(self, testbed: Testbed, name: str, address: str, wish: Wish) -> Move:  # noqa: ARG002 - all of the VM
        """Start a second QEMU, have the first one send the VM, end the first."""
        script = files("benchmarks.peers").joinpath("move_vm.py").read_bytes()
        with ssh.connected(PROVIDER.name, lab.machine(testbed.inventory, PROVIDER.name)) as provider:
            done = provider.run(["python3", "-", SOURCE], stdin=script, timeout_s=MOVE_TIMEOUT_S)
        return Move("pre-copy", {**json.loads(done.stdout), "outcome": "committed"})

    def clean(self, testbed: Testbed, name: str) -> None:
        """The container goes; the VM stays in whichever QEMU has it."""
        _runner(testbed).remove(name)


def _runner(testbed: Testbed) -> containers.Docker:
    return containers.Docker(testbed[SOURCE], testbed.inventory.network, say=testbed.say)
