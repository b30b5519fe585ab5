"""The floor: CRIU dumps to memory and restores from it on one host. No copy, no engine, no network switch.

What this costs nobody can undercut who moves processes by CRIU without sending memory ahead. The tunnel's measured rate
tells what moving the same memory would cost beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.measure import tunnel
from benchmarks.measure.criu_statistics import read_statistics
from benchmarks.peers import containers, ssh_path
from benchmarks.peers.containers import BUNDLES, RUNC_STATE
from benchmarks.peers.docker import script_facts
from benchmarks.peers.ssh_path import FOLDER
from benchmarks.peers.system import PRELUDE, Move
from benchmarks.testbed import SOURCE
from benchmarks.workloads import workload as workloads

if TYPE_CHECKING:
    from benchmarks.peers.system import Wish
    from benchmarks.testbed import Testbed
    from benchmarks.workloads.workload import Workload

MOVE = (
    PRELUDE
    + f"""
images={FOLDER}/$1; bundle={BUNDLES}/$1; mkdir -p "$images"
stamp begin
stamp synced
runc --root {RUNC_STATE} checkpoint --image-path "$images" --work-path "$images" --tcp-established --file-locks "$1"
stamp dumped
stamp transferred
runc --root {RUNC_STATE} restore --detach --bundle "$bundle" --image-path "$images" --work-path "$images" \\
	--tcp-established --file-locks "$1" </dev/null >/dev/null 2>&1
stamp restored
"""
)


class Floor:
    """A dump and a restore in place."""

    def __init__(self) -> None:
        self._tunnel_mb_s: float | None = None

    def prepare(self, testbed: Testbed, workload: Workload) -> None:  # noqa: ARG002 - the bundle is made at the start
        """CRIU's settings, tmpfs for the images, and the tunnel's rate while nothing else goes on."""
        self._tunnel_mb_s = tunnel.rate_mb_s(testbed)
        testbed[SOURCE].put(containers.CRIU_SETTINGS, containers.SETTINGS.encode())
        ssh_path.open_path(testbed)

    def start(self, testbed: Testbed, name: str, address: str, workload: Workload) -> str:
        """Under bare runc."""
        return workloads.start(_runner(testbed), name, address, workload)

    def move(self, testbed: Testbed, name: str, address: str, wish: Wish) -> Move:  # noqa: ARG002 - it goes nowhere
        """Dump and restore."""
        said = testbed.script(SOURCE, "floor", MOVE, name)
        counted = read_statistics(testbed[SOURCE], f"{FOLDER}/{name}")
        facts = script_facts(said)
        facts |= {
            "pages_bytes": counted.pages_bytes,
            "criu_dump_ms": counted.dump_ms,
            "criu_restore_ms": counted.restore_ms,
            "tunnel_mb_s": self._tunnel_mb_s,
        }
        return Move("in place", facts)

    def clean(self, testbed: Testbed, name: str) -> None:
        """Container, bundle, network, images."""
        _runner(testbed).remove(name)
        testbed.sh(SOURCE, 'rm -rf --one-file-system "$1"', f"{FOLDER}/{name}")


def _runner(testbed: Testbed) -> containers.Runc:
    return containers.Runc(testbed[SOURCE], testbed.inventory.network, say=testbed.say)
