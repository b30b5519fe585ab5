"""What tests do with hosts: run things on them, move containers between them, and see that nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Literal

import pytest

from benchmarks.engine import arrive, migrate
from benchmarks.faults.controllers import InProcess
from benchmarks.faults.faults import agent, kill_script, power_off, power_on
from benchmarks.faults.hosts import inside, patience
from benchmarks.faults.judge import IMAGE, SETTLE_S, differences
from benchmarks.faults.moments import moment
from benchmarks.faults.orchestrator import Orchestrator
from benchmarks.faults.trial import Trial
from benchmarks.workloads import redis
from sealift.errors import PrerequisiteMissing
from sealift.host import ssh
from sealift.host.agents import Agent
from sealift.inventory import lab_inventory
from sealift.lab import images, lab
from sealift.lab.layout import SOURCE
from sealift.migration import recovery, steps
from sealift.migration.request import Options, Request
from sealift.migration.session import Session
from sealift_agent.protocol import Assign, Release, ShowRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.workloads.client import Findings
    from sealift.errors import Refused
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory
    from sealift.lab.plan import Asked, Kind
    from sealift.model import Report

FIRST_ADDRESS = IPv4Address("10.77.1.1")
DOCKER_HOSTS = ("source", "destination")
CLEAN = """
docker ps -aq | xargs -r docker rm -fv
while docker ps -aq | grep -q .; do  # Docker refuses one whose removal has begun, and lists it until it is gone
    [ $((waited += 1)) -lt 100 ] || { docker ps -a >&2; exit 1; }
    sleep 0.3
    docker ps -aq --filter status=dead | xargs -r docker rm -fv
done
docker volume ls -q | xargs -r docker volume rm
"""


@dataclass
class Hosts:
    """The hosts of a lab, each with a connection of the test's own."""

    inventory: Inventory
    connections: dict[str, Connection]
    addresses: Iterator[str]
    assigned: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The lab's inventory file."""
        return lab_inventory()

    @property
    def network(self) -> str:
        """The workloads' Docker network."""
        return self.inventory.network.docker_network

    def __getitem__(self, host: str) -> Connection:
        return self.connections[host]

    def docker(self, host: str, *words: str, check: bool = True) -> str:
        """Run the Docker command line on a host; what it printed."""
        done = self.connections[host].run(["docker", *words], check=check, timeout_s=120)
        return (done.stdout + ("" if check else done.stderr)).strip()

    def sh(self, host: str, script: str, *arguments: str, check: bool = True) -> str:
        """Run a shell script on a host; what it printed."""
        command = ["sh", "-c", script, "sh", *arguments]
        return self.connections[host].run(command, check=check, timeout_s=120).stdout.strip()

    def inspect(self, host: str, container: str) -> dict[str, Any]:
        """Docker's description of a container."""
        described: dict[str, Any] = json.loads(self.docker(host, "inspect", container))[0]
        return described

    def address(self, host: str = "source") -> str:
        """An address that no other container has had, assigned to a host."""
        address = next(self.addresses)
        key = self.inventory.host(host).wireguard_key
        with Agent(self["gateway"], "gateway") as gateway:
            gateway.call(Assign(address, key or "", host))
        self.assigned.append(address)
        return address

    def owner(self, address: str) -> str | None:
        """Which host the gateway says has an address."""
        with Agent(self["gateway"], "gateway") as gateway:
            route = gateway.call(ShowRecord()).routes.get(address)
        return route.host if route else None

    def redis(self, name: str, memory_mb: int = 1) -> str:
        """A Redis on the source. Returns its address."""
        address = self.address()
        redis.start(self["source"], name, address, self.network, memory_mb, say=print)
        return address

    def python(
        self, name: str, program: str, *arguments: str, options: Sequence[str] = (), host: str = "source"
    ) -> None:
        """A container that runs a program in Python."""
        tag = images.provide(self[host], images.PYTHON, say=print)
        network = ["--network", self.network, "--ip", self.address(host)]
        words = ["python3", "-c", program, *arguments]
        self.docker(host, "run", "-d", "--name", name, *network, *options, tag, *words)

    def said_next(self, host: str, container: str = "box", within_s: float = 60) -> str:
        """What a program prints next, without the number that each of its lines begins with."""
        before = self.docker(host, "logs", "--tail", "1", container)
        deadline = time.monotonic() + within_s
        while (now := self.docker(host, "logs", "--tail", "1", container)) == before or not now:
            assert time.monotonic() < deadline, "it does not go on"
            time.sleep(0.1)
        return now.partition(" ")[2]

    def migrate(self, container: str, source: str = "source", destination: str = "destination") -> Report:
        """Migrate by the flow, in this process."""
        from flows.migrate import migrate as flow

        options = Options(evidence=self.evidence(destination))
        report: Report = flow(container, source, destination, options, self.path)
        return report

    def evidence(self, destination: str, inventory: Inventory | None = None) -> Literal["none"] | None:
        """What to ask of a destination: all that the inventory says, or nothing, by name, where it says nothing."""
        return None if (inventory or self.inventory).host(destination).vm else "none"

    def request(
        self, container: str, source: str = "source", destination: str = "destination", **options: Any
    ) -> Request:
        """What is asked for in a migration without Prefect. `options`: fields of `Options`."""
        return Request(
            container, source, destination, Options(evidence=self.evidence(destination), **options)
        )

    def engine(
        self,
        container: str,
        hooks: Mapping[str, Callable[[Session], object]] | None = None,
        source: str = "source",
        destination: str = "destination",
        **options: Any,
    ) -> Report:
        """Migrate without Prefect. Hooks: see `benchmarks.engine`; `options`: fields of `Options`."""
        return migrate(self.inventory, self.request(container, source, destination, **options), hooks)

    def refuse(
        self,
        container: str,
        inventory: Inventory | None = None,
        source: str = "source",
        destination: str = "destination",
    ) -> Refused:
        """Run the preflight alone; the refusal that it must end in."""
        from sealift.errors import SealiftError

        options = Options(evidence=self.evidence(destination, inventory))
        request = Request(container, source, destination, options)

        def look() -> None:
            with Session.open(inventory or self.inventory, request) as session:
                steps.preflight(session, arrive(session))

        with pytest.raises(SealiftError) as raised:
            look()
        return raised.value  # type: ignore[return-value]

    def state(self, host: str) -> dict[str, list[str]]:
        """What is on a host, by sections."""
        script = files("benchmarks.faults").joinpath("host_state.py").read_bytes()
        sections: dict[str, list[str]] = json.loads(
            self.connections[host].run(["python3", "-"], stdin=script).stdout
        )
        return sections

    def clean(self) -> None:
        """Remove all containers and volumes, and take back all addresses."""
        for host in DOCKER_HOSTS:
            self.sh(host, CLEAN)
        if self.assigned:
            with Agent(self["gateway"], "gateway") as gateway:
                while self.assigned:
                    gateway.call(Release(self.assigned.pop()))


@contextmanager
def own_run_directory() -> Iterator[None]:
    """A run directory for the tests' lab, unless one is chosen: a lab of the user's is not theirs."""
    if "SEALIFT_RUN" in os.environ:
        yield
        return
    place = "/run" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="sealift-tests-", dir=place) as chosen:
        os.environ["SEALIFT_RUN"] = chosen
        yield
        del os.environ["SEALIFT_RUN"]


@contextmanager
def raised(kind: Kind, evidence: Asked | None = None, kernel: str | None = None) -> Iterator[Inventory]:
    """A lab for the length of a block. It is taken down at the end, whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("a lab needs mmdebstrap")
    try:
        inventory = lab.up(kind, say=print, evidence=evidence, kernel=kernel)
    except PrerequisiteMissing as missing:
        pytest.skip(str(missing))
    try:
        yield inventory
    finally:
        lab.down()


@contextmanager
def set_up(inventory: Inventory) -> Iterator[Hosts]:
    """Connections to all hosts of a lab."""
    with ExitStack() as stack:
        names = (*DOCKER_HOSTS, "gateway", "client")
        opened = {name: stack.enter_context(ssh.connected(name, inventory.machine(name))) for name in names}
        yield Hosts(inventory, opened, (str(FIRST_ADDRESS + number) for number in range(1 << 12)))


def until_same(
    hosts: Hosts, host: str, before: dict[str, list[str]], *, allow: frozenset[str] = frozenset()
) -> dict[str, tuple[list[str], list[str]]]:
    """Differences of a host to a former state, given time to settle."""
    deadline = time.monotonic() + SETTLE_S
    while left := differences(before, hosts.state(host), allow=allow):
        if time.monotonic() > deadline:
            return left
        time.sleep(0.5)
    return {}


@contextmanager
def counting(hosts: Hosts, address: str, pause_s: float = 0) -> Iterator[list[Findings]]:
    """A client counts in Redis for the length of a block; the list gets what it found.

    It has a connection of its own: sshd takes ten commands at once over one.
    """
    found: list[Findings] = []
    with (
        ssh.connected("client", hosts.inventory.machine("client")) as host,
        redis.client(host, address, pause_s) as client,
    ):
        yield found
        time.sleep(0.3)
        found.append(client.findings())


@contextmanager
def untouched(hosts: Hosts, container: str, address: str | None = None) -> Iterator[None]:
    """Whatever the block tries: the container goes on at the source, its client notices nothing, nothing is left."""
    before = hosts.inspect("source", container)["State"]
    states = {host: hosts.state(host) for host in (*DOCKER_HOSTS, "gateway")}
    if address:
        with counting(hosts, address) as found:
            yield
        assert found[0].intact, found[0].summary()
    else:
        yield
    after = hosts.inspect("source", container)["State"]
    kept = ("Status", "Running", "Paused", "Pid", "StartedAt")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    if after["Running"]:
        assert not frozen(hosts, after["Pid"]), "the container was left frozen"
    for host, state in states.items():
        left = until_same(hosts, host, state, allow=IMAGE)
        assert not left, f"{host}: {left}"


def kill_agent(hosts: Hosts, host: str, role: str) -> Callable[[Session], None]:
    """A hook that kills an agent so that it can put nothing away."""

    def kill(_: Session) -> None:
        hosts.sh(host, kill_script(agent(role)))

    return kill


def frozen(hosts: Hosts, pid: int) -> bool:
    """Whether the kernel holds the control group of a process frozen."""
    script = (
        'g=$(sed -n "s/^[0-9]*:freezer://p" /proc/$1/cgroup); if [ -n "$g" ]; then '
        'cat "/sys/fs/cgroup/freezer$g/freezer.state"; else '
        'cat "/sys/fs/cgroup$(sed -n "s/^0:://p" /proc/$1/cgroup)/cgroup.freeze"; fi'
    )
    return hosts.sh("source", script, str(pid)) in {"FROZEN", "FREEZING", "1"}


COUNTER = "import itertools, time\nfor n in itertools.count(): print(n, flush=True); time.sleep(0.05)"


def check_stopped(hosts: Hosts) -> None:
    """A container whose processes a signal has stopped moves, and goes on when it is told to."""
    hosts.python("box", COUNTER)
    hosts.docker("source", "kill", "--signal", "STOP", "box")

    def printed(host: str) -> int:
        return int(hosts.docker(host, "logs", "--tail", "1", "box") or 0)

    before = printed("source")
    hosts.engine("box")
    state = hosts.inspect("destination", "box")["State"]
    assert hosts.sh("destination", "cut -d' ' -f3 /proc/$1/stat", str(state["Pid"])) == "T"
    assert printed("destination") == before
    hosts.docker("destination", "kill", "--signal", "CONT", "box")
    until = time.monotonic() + 10
    while printed("destination") == before:
        assert time.monotonic() < until, "it does not go on"
        time.sleep(0.1)


def copies(hosts: Hosts, name: str) -> dict[str, str]:
    """What Docker says of a container on each host that has it."""
    states = {
        host: hosts.docker(host, "ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.State}}")
        for host in DOCKER_HOSTS
    }
    return {host: state for host, state in states.items() if state}


def policy(hosts: Hosts, host: str, name: str = "box") -> dict[str, Any]:
    """The restart policy that Docker has of a container."""
    found: dict[str, Any] = hosts.inspect(host, name)["HostConfig"]["RestartPolicy"]
    return found


SLEEPER = "import time\nprint('up', flush=True)\nwhile True: time.sleep(1)"


def check_restart_policy_after_power_loss(hosts: Hosts, at: str, owner: str) -> None:
    """A source that Docker would have started its copy at starts none; who has the container in the end runs it."""
    hosts.python("box", SLEEPER, options=["--restart", "always"])
    log = lab.lab_dir() / "migration.log"
    with (
        Orchestrator.ready() as unused,
        InProcess.of("box", moment(at), "engine", log) as migration,
    ):
        assert migration.arrive(), log.read_text()
        trial = Trial(hosts.inventory, migration, unused)
        power_off(SOURCE)(trial)
        migration.kill()
        power_on(SOURCE)(trial)
    time.sleep(patience(3))  # Docker has done all that it does after a boot
    there = inside("source", "docker ps -a --filter name=^box$ --format '{{.State}}'").stdout.strip()
    assert there == "exited", "nobody but who knows the decision starts it"
    deadline = time.monotonic() + patience(60)  # the destination's agent may be at it still
    while left := recovery.recover(hosts.inventory):
        assert time.monotonic() < deadline, left
        time.sleep(1)
    hosts.inventory = lab.running()  # a host that proves its keys has others now
    hosts.connections["source"].close()
    hosts.connections["source"] = ssh.connect("source", hosts.inventory.machine("source"))
    assert copies(hosts, "box") == {owner: "running"}
    assert policy(hosts, owner)["Name"] == "always"
