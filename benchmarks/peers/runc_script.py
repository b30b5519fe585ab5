"""The script that everybody writes: runc pre-dump, rsync, runc checkpoint, rsync, runc restore over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import containers, ssh_path
from benchmarks.peers.containers import BUNDLES, RUNC_STATE
from benchmarks.peers.docker import script_facts
from benchmarks.peers.ssh_path import FOLDER, PEER, RSYNC
from benchmarks.peers.system import PRELUDE, Move
from benchmarks.testbed import DESTINATION, DOCKER_HOSTS, SOURCE
from benchmarks.workloads import workload as workloads

if TYPE_CHECKING:
    from benchmarks.peers.system import Wish
    from benchmarks.testbed import Testbed
    from benchmarks.workloads.workload import Workload

MOVE = (
    PRELUDE
    + f"""
images={FOLDER}/$1; bundle={BUNDLES}/$1; mkdir -p "$images"
{PEER} mkdir -p "$images"
stamp begin
{RSYNC} "$bundle/rootfs" "peer:$bundle/"
stamp synced
parent=
if criu check --feature mem_dirty_track >/dev/null 2>&1; then
	runc --root {RUNC_STATE} checkpoint --pre-dump --image-path "$images/pre" --tcp-established "$1"
	{RSYNC} "$images/pre" "peer:$images/"
	parent="--parent-path ../pre"
	echo pre-copy
fi
stamp pre_dumped
runc --root {RUNC_STATE} checkpoint --image-path "$images/final" --work-path "$images/final" $parent \\
	--tcp-established --file-locks "$1"
stamp dumped
{RSYNC} "$images/final" "peer:$images/"
{RSYNC} --delete "$bundle/rootfs" "peer:$bundle/"
stamp transferred
{PEER} "runc --root {RUNC_STATE} restore --detach --bundle $bundle --image-path $images/final \\
	--work-path $images/final --tcp-established --file-locks $1 </dev/null >/dev/null 2>&1"
stamp restored
"""
)


class RuncScript:
    """Bare runc at both ends: no engine has to be asked, and none knows of the container."""

    def prepare(self, testbed: Testbed, workload: Workload) -> None:  # noqa: ARG002 - the bundle is made at the start
        """CRIU's settings and a way from host to host."""
        for host in DOCKER_HOSTS:
            testbed[host].put(containers.CRIU_SETTINGS, containers.SETTINGS.encode())
        ssh_path.open_path(testbed)

    def start(self, testbed: Testbed, name: str, address: str, workload: Workload) -> str:
        """The container at the source; its bundle and its network at the destination."""
        said = workloads.start(_runner(testbed, SOURCE), name, address, workload)
        there = _runner(testbed, DESTINATION)
        there.unpack(name, workload)
        there.connect(name, address)
        return said

    def move(self, testbed: Testbed, name: str, address: str, wish: Wish) -> Move:  # noqa: ARG002 - it has one way
        """Run the script, then the address over there."""
        said = testbed.script(SOURCE, "runc-script", MOVE, name)
        testbed.assign(address, DESTINATION)
        strategy = "pre-copy" if "pre-copy" in said.split() else "stop-and-copy"
        return Move(strategy, script_facts(said) | {"rounds": int(strategy == "pre-copy")})

    def clean(self, testbed: Testbed, name: str) -> None:
        """Containers, bundles, networks and images."""
        for host in DOCKER_HOSTS:
            _runner(testbed, host).remove(name)
            testbed.sh(host, 'rm -rf --one-file-system "$1"', f"{FOLDER}/{name}")


def _runner(testbed: Testbed, host: str) -> containers.Runc:
    return containers.Runc(testbed[host], testbed.inventory.network, say=testbed.say)
