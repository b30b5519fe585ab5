"""Containers in which programs of the suite run, and how each runner moves one from the source to the destination."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks import engine
from benchmarks.peers import containers, ssh_path
from benchmarks.peers.containers import BUNDLES, RUNC_STATE
from benchmarks.peers.runc_script import MOVE
from benchmarks.testbed import DESTINATION, DOCKER_HOSTS, SOURCE
from benchmarks.zdtm.row import Way
from sealift.errors import SealiftError
from sealift.migration.check import check
from sealift.migration.checks.finding import Answer
from sealift.migration.request import Options, Request
from sealift.model import Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.testbed import Testbed

CONTAINER = "zdtm"
STARTED_S = 15
"""Programs that have not started after so many seconds, and one more for each that shares the container, are not
waited for."""

READY_S = 120

CAPABILITIES = (
    *(
        "AUDIT_CONTROL",
        "BLOCK_SUSPEND",
        "DAC_READ_SEARCH",
        "IPC_LOCK",
        "IPC_OWNER",
        "LEASE",
        "LINUX_IMMUTABLE",
    ),
    *("NET_ADMIN", "NET_BROADCAST", "SYS_ADMIN", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_TTY_CONFIG"),
    *("SYSLOG", "WAKE_ALARM"),
)
PRIVILEGES: dict[str, tuple[str, ...]] = {"default": (), "privileged": CAPABILITIES}
"""The sets: which capabilities a container has besides Docker's defaults. With any, it has no seccomp filter."""

FIRST = f"""
cd /zdtm; chmod 777 static transition; ulimit -c 0; export ZDTM_DELTA=600
for folder in static transition; do
    list=; for each; do case $each in "$folder"/*) list="$list ${{each#*/}}.pid" ;; esac; done
    [ -z "$list" ] || timeout -k 2 $(({STARTED_S} + $#)) make --no-print-directory -k -j 4 -C "$folder" $list
done >make.log 2>&1
touch ready; while :; do sleep 3600 & wait $!; done
"""
"""The first process: starts the programs that it is called with, and reaps. One of them fails if it waits for longer
than ZDTM_DELTA, in seconds."""

READY = ["sh", "-c", "until [ -e /zdtm/ready ]; do sleep 0.1; done; sleep 0.3"]


class Stuck(Exception):
    """`sealift check` says no. The message has its reasons."""


class Runner(Protocol):
    """One container for some programs."""

    def start(self, names: Sequence[str]) -> None:
        """Start these programs at the source, and wait until each is up or has failed."""

    def move(self) -> None:
        """Move it to the destination. Stuck if `check` says no; SealiftError or TimeoutError if it fails."""

    def execute(self, argv: Sequence[str], timeout_s: float = 60) -> str:
        """Run a command in the container, wherever it is; what it printed."""

    def remove(self) -> None:
        """Nothing of it is left on either host."""


class Docker:
    """A container of Docker's, which Sealift moves, or which stays."""

    def __init__(self, testbed: Testbed, tag: str, privileges: str, way: Way) -> None:
        self._testbed, self._tag, self._way = testbed, tag, way
        self._options = [f"--cap-add={name}" for name in PRIVILEGES[privileges]]
        if self._options:
            self._options += ["--security-opt", "seccomp=unconfined"]
        self._at = SOURCE
        self._address = _address(testbed)

    def start(self, names: Sequence[str]) -> None:
        """See `Runner`."""
        self._testbed.assign(self._address, SOURCE)
        network = ["--network", self._testbed.inventory.network.docker_network, "--ip", self._address]
        command = ["docker", "run", "--detach", "--name", CONTAINER, *network, *self._options, self._tag]
        self._testbed[SOURCE].run([*command, "/bin/sh", "-c", FIRST, "sh", *names], timeout_s=120)
        self.execute(READY, READY_S)

    def move(self) -> None:
        """See `Runner`."""
        if self._way is Way.STAYS:
            return
        options = Options(
            strategy=Strategy(self._way.value),
            evidence=None if self._testbed.inventory.host(DESTINATION).vm else "none",
        )
        request = Request(CONTAINER, SOURCE, DESTINATION, options)
        checked = check(self._testbed.inventory, request)
        if not checked.movable:
            raise Stuck("; ".join(str(each) for each in checked.findings if each.answer is Answer.NO))
        engine.migrate(self._testbed.inventory, request)
        self._at = DESTINATION

    def execute(self, argv: Sequence[str], timeout_s: float = 60) -> str:
        """See `Runner`."""
        return self._testbed[self._at].run(["docker", "exec", CONTAINER, *argv], timeout_s=timeout_s).stdout

    def remove(self) -> None:
        """See `Runner`."""
        for host in DOCKER_HOSTS:
            self._testbed[host].run(
                ["docker", "rm", "--force", "--volumes", CONTAINER], check=False, timeout_s=120
            )
        self._testbed.release(self._address)


UNPACK = """
image=$1/image-${2##*:}; bundle=$1/$3
if [ ! -d "$image" ]; then
    rm -rf --one-file-system "$1"/image-*; mkdir -p "$image.part"
    c=$(docker create "$2" true); docker export "$c" | tar -x -C "$image.part"; docker rm "$c" >/dev/null
    mv "$image.part" "$image"
fi
mkdir -p "$bundle/rootfs" "$bundle/upper" "$bundle/work"
mount -t overlay -o "lowerdir=$image,upperdir=$bundle/upper,workdir=$bundle/work" zdtm "$bundle/rootfs"
cd "$bundle"; rm -f config.json; runc spec; cat config.json
"""
GONE = """
runc --root "$1" delete --force "$3" 2>/dev/null || true
umount "$2/$3/rootfs" 2>/dev/null || true
"""


class Plain:
    """A container of runc's alone, with its root on overlayfs, which CRIU dumps and restores with Sealift's options."""

    def __init__(self, testbed: Testbed, tag: str, privileges: str) -> None:
        self._testbed, self._tag = testbed, tag
        self._capabilities = [
            *containers.CAPABILITIES,
            *(f"CAP_{name}" for name in PRIVILEGES[privileges]),
        ]
        self._runners = {
            host: containers.Runc(testbed[host], testbed.inventory.network, say=testbed.say)
            for host in DOCKER_HOSTS
        }
        self._at = SOURCE
        self._address = _address(testbed)
        for host in DOCKER_HOSTS:
            testbed[host].put(containers.CRIU_SETTINGS, containers.SETTINGS.encode())
        ssh_path.open_path(testbed)

    def start(self, names: Sequence[str]) -> None:
        """See `Runner`."""
        self._testbed.assign(self._address, SOURCE)
        command = ["/bin/sh", "-c", FIRST, "sh", *names]
        for host in DOCKER_HOSTS:
            spec = json.loads(self._testbed.sh(host, UNPACK, BUNDLES, self._tag, CONTAINER, timeout_s=300))
            configured = self._configured(spec, command)
            self._testbed[host].put(f"{BUNDLES}/{CONTAINER}/config.json", json.dumps(configured).encode())
            self._runners[host].connect(CONTAINER, self._address)
        self._runners[SOURCE].launch(CONTAINER)
        self.execute(READY, READY_S)

    def _configured(self, spec: dict[str, Any], command: Sequence[str]) -> dict[str, Any]:
        configured = containers.configured(
            spec, CONTAINER, command, user=0, allowed=self._capabilities, bounding=self._capabilities
        )
        configured["process"]["noNewPrivileges"] = False  # as Docker's
        return configured

    def move(self) -> None:
        """See `Runner`."""
        self._testbed.script(SOURCE, "zdtm-plain", MOVE, CONTAINER, timeout_s=120)
        self._testbed.assign(self._address, DESTINATION)
        self._at = DESTINATION

    def execute(self, argv: Sequence[str], timeout_s: float = 60) -> str:
        """See `Runner`."""
        command = ["runc", "--root", RUNC_STATE, "exec", CONTAINER, *argv]
        return self._testbed[self._at].run(command, timeout_s=timeout_s).stdout

    def remove(self) -> None:
        """See `Runner`. What was unpacked of the image stays for the next one."""
        for host in DOCKER_HOSTS:
            self._testbed.sh(host, GONE, RUNC_STATE, BUNDLES, CONTAINER)
            self._runners[host].remove(CONTAINER)
            self._testbed.sh(host, 'rm -rf --one-file-system "$1"', f"{ssh_path.FOLDER}/{CONTAINER}")
        self._testbed.release(self._address)


def clear(testbed: Testbed) -> None:
    """Remove what a run that was killed has left, and what `Plain` has unpacked."""
    for host in DOCKER_HOSTS:
        testbed[host].run(["docker", "rm", "--force", "--volumes", CONTAINER], check=False, timeout_s=120)
        testbed.sh(host, GONE, RUNC_STATE, BUNDLES, CONTAINER)
        containers.Runc(testbed[host], testbed.inventory.network, say=testbed.say).remove(CONTAINER)
        testbed.sh(host, 'rm -rf --one-file-system "$1"/image-*', BUNDLES)


def runner(testbed: Testbed, tag: str, privileges: str, way: Way) -> Runner:
    """A new container for this way."""
    if way is Way.PLAIN:
        return Plain(testbed, tag, privileges)
    return Docker(testbed, tag, privileges, way)


def _address(testbed: Testbed) -> str:
    network = testbed.inventory.network.workloads
    # Not an address that was there lately, since hosts remember for a minute at which port an address was.
    return str(network[network.num_addresses // 2 + secrets.randbelow(network.num_addresses // 2 - 2)])


FAILURES = (SealiftError, TimeoutError)
