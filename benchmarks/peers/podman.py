"""Podman: pre-checkpoint where the kernel tracks dirty pages, checkpoint into an archive, rsync, restore from it.

It is none of the lab's packages: it is laid over the hosts' trees when it is first asked for. Its OCI runtime is the
lab's runc, as Debian's crun comes without CRIU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers import containers, ssh_path
from benchmarks.peers.docker import script_facts
from benchmarks.peers.ssh_path import FOLDER, PEER, RSYNC
from benchmarks.peers.system import PRELUDE, Absent, Move
from benchmarks.testbed import DESTINATION, DOCKER_HOSTS, SOURCE
from benchmarks.workloads import workload as workloads
from sealift.errors import CommandFailed, PrerequisiteMissing
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers.system import Wish
    from benchmarks.testbed import Testbed
    from benchmarks.workloads.workload import Workload
    from sealift.host.ssh import Connection
    from sealift.inventory import Network

PACKAGES = images.Image(
    "podman", ("podman", "conmon", "netavark", "golang-github-containers-common"), ("podman",)
)
LAID_OVER = [
    *("tar", "-x", "--skip-old-files", "-C", "/", "--exclude=./usr/local/*", "--exclude=./etc/passwd"),
    *("--exclude=./etc/group", "--exclude=./etc/nsswitch.conf", "-f", "-"),
]
INSTALL_TIMEOUT_S = 300

# Docker's place has the storage, and tmpfs is not overlay: Podman's layers rest beside it.
PODMAN = (
    "env PODMAN_IGNORE_CGROUPSV1_WARNING=1 podman --root /var/lib/docker/peer-podman "
    "--runroot /run/sealift/peer-podman --cgroup-manager cgroupfs --runtime runc --storage-driver overlay "
    "--events-backend file"
)

MOVE = (
    PRELUDE
    + f"""
work={FOLDER}/$1; mkdir -p "$work"
{PEER} mkdir -p "$work"
keep="--tcp-established --file-locks"
stamp begin
stamp synced
previous=; import=
if criu check --feature mem_dirty_track >/dev/null 2>&1; then
	{PODMAN} container checkpoint --pre-checkpoint --compress none --export "$work/pre.tar" "$1" >/dev/null
	{RSYNC} "$work/pre.tar" "peer:$work/"
	previous=--with-previous; import="--import-previous $work/pre.tar"
	echo pre-copy
fi
stamp pre_dumped
{PODMAN} container checkpoint $keep $previous --compress none --export "$work/final.tar" "$1" >/dev/null
stamp dumped
{RSYNC} "$work/final.tar" "peer:$work/"
stamp transferred
{PEER} {PODMAN} container restore $keep $import --import "$work/final.tar" >/dev/null
stamp restored
"""
)


class Podman:
    """`podman container checkpoint --export` and `restore --import`."""

    def prepare(self, testbed: Testbed, workload: Workload) -> None:
        """Podman itself, CRIU's settings, a way from host to host, the same image at both."""
        for host in DOCKER_HOSTS:
            install(testbed[host], say=testbed.say)
            testbed[host].put(containers.CRIU_SETTINGS, containers.SETTINGS.encode())
        ssh_path.open_path(testbed)
        tag = _tag(workload)
        if testbed[SOURCE].run([*PODMAN.split(), "image", "exists", tag], check=False).status != 0:
            with images.build(workload.image, say=testbed.say).open("rb") as archive:
                testbed[SOURCE].feed(
                    [*PODMAN.split(), "import", "-", tag], archive, timeout_s=INSTALL_TIMEOUT_S
                )
        # Not imported there as well: a restore asks for the image by its id, and every import has an id of its own.
        give = (
            f'id=$({PODMAN} image inspect --format "{{{{.Id}}}}" {tag}); {PEER} {PODMAN} image exists "$id" || '
            f"{PODMAN} save {tag} | {PEER} {PODMAN} load >/dev/null 2>&1"
        )
        testbed.sh(SOURCE, give)

    def start(self, testbed: Testbed, name: str, address: str, workload: Workload) -> str:
        """The container at the source; its network at the destination."""
        said = workloads.start(_runner(testbed, SOURCE), name, address, workload)
        _runc(testbed, DESTINATION).connect(name, address)
        return said

    def move(self, testbed: Testbed, name: str, address: str, wish: Wish) -> Move:  # noqa: ARG002 - it has one way
        """Run the script, then the address over there."""
        said = testbed.script(SOURCE, "podman", MOVE, name)
        testbed.assign(address, DESTINATION)
        strategy = "pre-copy" if "pre-copy" in said.split() else "stop-and-copy"
        facts: dict[str, Any] = script_facts(said) | {"rounds": int(strategy == "pre-copy")}
        return Move(strategy, facts)

    def clean(self, testbed: Testbed, name: str) -> None:
        """Containers, networks and archives."""
        for host in DOCKER_HOSTS:
            _runner(testbed, host).remove(name)
            testbed.sh(host, 'rm -rf --one-file-system "$1"', f"{FOLDER}/{name}")


class Containers:
    """Podman's containers, in a network namespace made by hand: its own networks know nothing of ours."""

    def __init__(self, host: Connection, network: Network, *, say: Callable[[str], None]) -> None:
        self.host = host
        self.runc = containers.Runc(host, network, say=say)

    def run(self, name: str, address: str, workload: Workload) -> None:
        """Connect, create, start."""
        self.runc.connect(name, address)
        options = ["--name", name, "--network", f"ns:/run/netns/{name}", "--log-driver", "k8s-file"]
        options += ["--annotation", f"org.criu.config={containers.CRIU_SETTINGS}"]
        options += ["--security-opt", "seccomp=unconfined", "--env", f"PATH={images.PATH}"]
        options += ["--user", workload.image.user]
        self._podman("create", *options, _tag(workload), *workload.command)
        if workload.scripts:
            self.host.run([*PODMAN.split(), "cp", "-", f"{name}:/"], stdin=containers.packed(workload))
        self._podman("start", name)

    def execute(self, name: str, argv: Sequence[str], timeout_s: float) -> str:
        """Run a command in it; what it printed."""
        return self.host.run([*PODMAN.split(), "exec", name, *argv], timeout_s=timeout_s).stdout

    def remove(self, name: str) -> None:
        """End and remove, whatever its state."""
        self.host.run([*PODMAN.split(), "rm", "--force", "--time", "0", name], check=False, timeout_s=120)
        self.runc.remove(name)

    def _podman(self, *words: str) -> None:
        self.host.run([*PODMAN.split(), *words])


def install(host: Connection, *, say: Callable[[str], None]) -> None:
    """Lay Podman's packages over a lab host's tree unless they are there. Absent where they can't be had."""
    if host.run(["podman", "--version"], check=False).status == 0:
        return
    try:
        archive = images.build(PACKAGES, say=say)
    except (CommandFailed, PrerequisiteMissing) as failed:
        raise Absent(f"Podman's packages can't be had: {failed}") from failed
    with archive.open("rb") as content:
        host.feed(LAID_OVER, content, timeout_s=INSTALL_TIMEOUT_S)
    host.run(["ldconfig"])


def _tag(workload: Workload) -> str:
    return f"localhost/{workload.image.name}:1"


def _runner(testbed: Testbed, host: str) -> Containers:
    return Containers(testbed[host], testbed.inventory.network, say=testbed.say)


def _runc(testbed: Testbed, host: str) -> containers.Runc:
    return containers.Runc(testbed[host], testbed.inventory.network, say=testbed.say)
