"""What Sealift counts on in Docker, containerd and runc, each said by name: a future version that breaks one is told.

`SEALIFT_DOCKER=26:28` runs these, as all tests of this folder, on hosts with these versions of Docker.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS, counting, until_same

from sealift.migration.request import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

BUNDLES = "/run/containerd/io.containerd.runtime.v2.task/moby"
HOOK = "libnetwork-setkey"
LAST_WITH_HOOK = 26


@pytest.fixture(params=DOCKER_HOSTS)
def host(request: pytest.FixtureRequest, hosts: Hosts) -> str:
    """A host with a container `box` in the workloads' network."""
    name = str(request.param)
    if name == "source":
        hosts.redis("box")
    else:
        hosts.redis("box")
        hosts.engine("box")
        hosts.docker(name, "restart", "box")  # the bundle is Docker's again
    return name


def major(hosts: Hosts, host: str) -> int:
    return int(hosts.docker(host, "version", "--format", "{{.Server.Version}}").partition(".")[0])


def test_what_a_restore_counts_on(hosts: Hosts, host: str) -> None:
    described = hosts.inspect(host, "box")
    container, pid = described["Id"], described["State"]["Pid"]
    bundle = f"{BUNDLES}/{container}"
    spec = json.loads(hosts.sh(host, f"cat {bundle}/config.json"))

    hooks = [hook["args"][0] for hook in (spec.get("hooks") or {}).get("prestart") or []]
    if major(hosts, host) <= LAST_WITH_HOOK:
        assert HOOK in hooks, "Docker fills the network by another hook than sandbox.fill_by_hook calls"
    else:
        assert HOOK not in hooks, "Docker fills the network by a hook again: see stand_in"
    network = [each for each in spec["linux"]["namespaces"] if each["type"] == "network"]
    assert [each.get("path") for each in network] in ([None], [""]), (
        "the bundle names no new network namespace"
    )

    groups = hosts.sh(host, f"cut -d: -f3 /proc/{pid}/cgroup | sort -u").splitlines()
    assert spec["linux"]["cgroupsPath"] in groups, (
        "the bundle's cgroupsPath is not the group: see cgroup.of_bundle"
    )

    known = hosts.sh(host, f"cat {bundle}/bootstrap.json 2>/dev/null || cat {bundle}/address")
    assert "unix://" in known, "the shim's address is somewhere else: see shim"
    pipes = hosts.sh(host, f"ls /run/docker/containerd/{container}")
    assert "-stdout" in pipes, "Docker's pipes are somewhere else: see files.printing"
    assert "-stderr" in pipes, "Docker's pipes are somewhere else: see files.printing"
    state = hosts.sh(host, f"ls -d /run/docker/runtime-*/moby/{container}")
    assert state, "runc's state is somewhere else: see criu.runtime_root"
    assert json.loads(hosts.sh(host, f"cat {state}/state.json"))["external_descriptors"], (
        "see criu.descriptors"
    )


def test_the_gateway_reaches_a_container_that_publishes_nothing(hosts: Hosts, host: str) -> None:
    address = hosts.inspect(host, "box")["NetworkSettings"]["Networks"][hosts.network]["IPAddress"]
    ask = "import socket, sys; socket.create_connection((sys.argv[1], 6379), 5)"
    hosts["client"].run(["python3", "-c", ask, address])


@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.POST_COPY])
def test_there_and_back_and_there_again_under_a_client(hosts: Hosts, strategy: Strategy) -> None:
    """Between hosts of different versions, if the lab has them."""
    address = hosts.redis("box", memory_mb=10)
    with counting(hosts, address, 0.002) as found:
        for source, destination in (DOCKER_HOSTS, DOCKER_HOSTS[::-1], DOCKER_HOSTS):
            time.sleep(0.5)
            hosts.engine("box", None, source, destination, strategy=strategy)
            pid = hosts.inspect(destination, "box")["State"]["Pid"]
            assert hosts.sh(destination, f"cat /proc/{pid}/comm") == "redis-server"
            assert hosts.docker(destination, "exec", "box", "redis-server", "--version").startswith("Redis")
            stats = hosts.docker(destination, "stats", "--no-stream", "--format", "{{.MemUsage}}", "box")
            assert not stats.startswith("0B"), (
                "containerd looks at another control group than the container's"
            )
    assert found[0].intact, found[0]


def test_the_end_of_a_moved_container_is_noticed(hosts: Hosts) -> None:
    hosts.redis("box")
    hosts.engine("box")
    pid = hosts.inspect("destination", "box")["State"]["Pid"]
    hosts.sh("destination", f"kill -9 {pid}")
    assert hosts.docker("destination", "wait", "box") == "137"


def test_a_roll_back_leaves_nothing(hosts: Hosts) -> None:
    hosts.redis("box")
    hosts.engine("box")
    hosts.engine("box", None, "destination", "source")  # the image stays there
    before = hosts.state("destination")

    def fail(_: object) -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        hosts.engine("box", {"armed": fail})
    assert hosts.inspect("source", "box")["State"]["Running"]
    assert until_same(hosts, "destination", before) == {}
