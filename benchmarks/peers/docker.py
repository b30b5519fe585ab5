"""Docker's own: `docker checkpoint create`, the checkpoint and the files over SSH, `docker start --checkpoint`.

Docker asks for an experimental daemon, keeps the checkpoint with the container, and has no word for where it should go
to: the copying and the network are the user's, as they are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers import containers, ssh_path
from benchmarks.peers.ssh_path import PEER, RSYNC
from benchmarks.peers.system import PRELUDE, Move, sent_bytes, stamps
from benchmarks.testbed import DESTINATION, DOCKER_HOSTS, SOURCE
from benchmarks.workloads import workload as workloads
from sealift.lab import images

if TYPE_CHECKING:
    from benchmarks.peers.system import Wish
    from benchmarks.testbed import Testbed
    from benchmarks.workloads.workload import Workload

EXPERIMENTAL = """
[ "$(docker version --format '{{.Server.Experimental}}')" = true ] && exit 0
sed -i 's/^{/{"experimental": true,/' /etc/docker/daemon.json
if [ -d /run/systemd/system ]; then systemctl restart docker; else
	pid=$(cat /run/docker.pid); kill "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	setsid dockerd </dev/null >>/var/log/dockerd.log 2>&1 &
fi
for _ in $(seq 300); do docker info >/dev/null 2>&1 && exit 0; sleep 0.2; done
echo "Docker did not come back as an experimental daemon" >&2; exit 1
"""

MOVE = (
    PRELUDE
    + f"""
upper=$(docker inspect -f '{{{{.GraphDriver.Data.UpperDir}}}}' "$1")
id=$(docker inspect -f '{{{{.Id}}}}' "$1")
images=$(find /run/docker /run/containerd -maxdepth 5 -type d -path "*moby/$id" 2>/dev/null | head -1)
stamp begin
{RSYNC} "$upper/" "peer:$3/"
stamp synced
docker checkpoint create "$1" moving >/dev/null
stamp dumped
{RSYNC} "/var/lib/docker/containers/$id/checkpoints/moving" "peer:/var/lib/docker/containers/$2/checkpoints/"
{RSYNC} --delete "$upper/" "peer:$3/"
stamp transferred
{PEER} docker start --checkpoint moving "$1"
stamp restored
"""
)


class DockerCheckpoint:
    """The experimental feature, as its documentation has it."""

    def __init__(self) -> None:
        self._copy: dict[str, str] = {}

    def prepare(self, testbed: Testbed, workload: Workload) -> None:
        """An experimental daemon, CRIU's settings, a way from host to host, the image at the destination."""
        for host in DOCKER_HOSTS:
            testbed.sh(host, EXPERIMENTAL)
            testbed[host].put(containers.CRIU_SETTINGS, containers.SETTINGS.encode())
        ssh_path.open_path(testbed)
        images.provide(testbed[DESTINATION], workload.image, say=testbed.say)

    def start(self, testbed: Testbed, name: str, address: str, workload: Workload) -> str:
        """The container at the source, and an empty one of the same description at the destination."""
        said = workloads.start(_runner(testbed, SOURCE), name, address, workload)
        self._copy[name] = _runner(testbed, DESTINATION).create(name, address, workload)
        return said

    def move(self, testbed: Testbed, name: str, address: str, wish: Wish) -> Move:  # noqa: ARG002 - it has one way
        """Checkpoint, copy, start, and the address over there."""
        copy = self._copy[name]
        upper = (
            testbed[DESTINATION]
            .run(["docker", "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", name])
            .stdout
        )
        said = testbed.script(SOURCE, "docker-checkpoint", MOVE, name, copy, upper.strip())
        testbed.assign(address, DESTINATION)
        return Move("stop-and-copy", script_facts(said))

    def clean(self, testbed: Testbed, name: str) -> None:
        """Remove it on both hosts, and the copy of the images that containerd makes for a start and forgets."""
        for host in DOCKER_HOSTS:
            _runner(testbed, host).remove(name)
            testbed.sh(host, "rm -rf /tmp/ctrd-checkpoint*")


def script_facts(output: str) -> dict[str, Any]:
    """What a peer's script has stamped, as columns. What it stopped for is dump, transfer and restore together."""
    at = stamps(output)
    return {
        "sync_ms": at["synced"] - at["begin"],
        "pre_dump_ms": at.get("pre_dumped", at["synced"]) - at["synced"],
        "final_dump_ms": at["dumped"] - at.get("pre_dumped", at["synced"]),
        "transfer_ms": at["transferred"] - at["dumped"],
        "restore_ms": at["restored"] - at["transferred"],
        "total_ms": at["restored"] - at["begin"],
        "cutover_unix": at.get("pre_dumped", at["synced"]) / 1000,
        "pages_bytes": sent_bytes(output),
        "outcome": "committed",
    }


def _runner(testbed: Testbed, host: str) -> containers.Docker:
    options = ["--runtime", "runc", "--annotation", f"org.criu.config={containers.CRIU_SETTINGS}"]
    return containers.Docker(testbed[host], testbed.inventory.network, options, say=testbed.say)
