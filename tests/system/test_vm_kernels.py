"""Hosts with different kernels, and with AppArmor on: what `check` says of them is what happens."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hosts import DOCKER_HOSTS, counting, raised, set_up, untouched
from menagerie import PORT

from sealift.errors import Refused
from sealift.lab import images
from sealift.model import Strategy
from sealift_agent import libc
from sealift_agent.network.inside import CLONE_NEWNET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.timeout(1800)]

PAUSE_S = 0.05
BOTH_WAYS = (DOCKER_HOSTS, DOCKER_HOSTS[::-1])

PROFILE = """
profile sealift-own flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  capability,
  signal,
  ptrace peer=sealift-own,
  deny /forbidden/** wl,
  deny mount,
}
"""
TRY = """
import ctypes, itertools, os, time
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs("/forbidden")
def errno(call, *arguments):
    ctypes.set_errno(0)
    call(*arguments)
    return ctypes.get_errno()
for n in itertools.count():
    label = open("/proc/self/attr/apparmor/current").read().strip()
    written = errno(libc.creat, b"/forbidden/file", 0o600)
    mounted = errno(libc.mount, b"none", b"/forbidden", b"tmpfs", 0, None)
    print(n, f"{label}: creat {written}, mount {mounted}, {len(os.getrandom(8))} random bytes", flush=True)
    time.sleep(0.2)
"""
"""It says under which profile it runs, and how calls end: one that PROFILE forbids, one that Docker's forbids, too."""

DENIED = 13
OWN = f"sealift-own (enforce): creat {DENIED}, mount {DENIED}, 8 random bytes"
DOCKERS = f"docker-default (enforce): creat 0, mount {DENIED}, 8 random bytes"
LOAD = "apparmor_parser --replace /root/profile"
LOAD_BINARY = "apparmor_parser --binary --replace /root/policy"
POLICY = "cat /sys/kernel/security/apparmor/policy/profiles/sealift-own.*/raw_data | base64 -w0"

WAIT = (
    "import socket, sys, time\n"
    "while socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))): time.sleep(0.2)\n"
)
VISIT = (
    "import socket, sys\n"
    "visitor = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=300)\n"
    "answers = visitor.makefile('r')\n"
    "for line in sys.stdin:\n"
    "    visitor.sendall(b'look\\n')\n"
    "    print(answers.readline(), end='', flush=True)\n"
)


@contextmanager
def with_kernels(kernel: str) -> Iterator[Hosts]:
    """A lab of its own beside that of the other tests, in a network namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    usual = os.environ.get("SEALIFT_RUN")
    with (
        Path("/proc/self/ns/net").open() as network,
        tempfile.TemporaryDirectory(prefix="sealift-kernels-", dir="/run") as place,
    ):
        os.environ["SEALIFT_RUN"] = place
        libc.call("unshare", CLONE_NEWNET)
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            with raised("vm", evidence="none", kernel=kernel) as inventory, set_up(inventory) as ready:
                yield ready
        finally:
            libc.call("setns", network.fileno(), CLONE_NEWNET)
            if usual is None:
                del os.environ["SEALIFT_RUN"]
            else:
                os.environ["SEALIFT_RUN"] = usual


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("6.1:generic", marks=pytest.mark.whole),
        pytest.param("generic:testing", marks=pytest.mark.whole),
        pytest.param("6.1:testing", marks=pytest.mark.whole),
    ],
)
def two_kernels(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """Hosts with an older kernel at the source and a newer one at the destination."""
    with with_kernels(request.param) as ready:
        yield ready


@pytest.fixture
def hosts(two_kernels: Hosts) -> Iterator[Hosts]:
    """The same, cleaned after each test."""
    yield two_kernels
    two_kernels.clean()


def test_a_client_of_redis_notices_nothing(hosts: Hosts) -> None:
    address = hosts.redis("redis", 4)
    with counting(hosts, address, PAUSE_S) as found:
        for here, there in BOTH_WAYS:
            hosts.engine("redis", source=here, destination=there)
    assert found[0].intact, found[0].summary()


def test_everything_that_criu_carries_comes_through_and_back(hosts: Hosts) -> None:
    address = hosts.address()
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    script = (Path(__file__).parents[1] / "menagerie.py").read_text()
    run = ["run", "--detach", "--name", "menagerie", "--network", hosts.network, "--ip", address, "--init"]
    hosts.docker("source", *run, tag, "python3", "-u", "-c", script)
    hosts.docker("source", "exec", "menagerie", "python3", "-c", WAIT, str(PORT))
    channel = hosts["client"].open(["python3", "-u", "-c", VISIT, address, str(PORT)])
    answers = channel.makefile("r")

    def look() -> Any:
        channel.sendall(b"look\n")
        return json.loads(answers.readline())

    assert not look()["wrong"], "before anything has happened"
    for here, there in BOTH_WAYS:
        hosts.engine("menagerie", source=here, destination=there)
        assert not look()["wrong"]
    channel.close()


def test_dockers_own_profile_holds_on_both_hosts(hosts: Hosts) -> None:
    hosts.python("box", TRY, options=["--cap-add", "SYS_ADMIN"])
    assert hosts.said_next("source") == DOCKERS
    for here, there in BOTH_WAYS:
        hosts.engine("box", source=here, destination=there)
        assert hosts.said_next(there) == DOCKERS


def test_memory_that_an_older_kernel_does_not_have_is_refused_by_name(hosts: Hosts) -> None:
    if not hosts.sh("source", "uname -r").startswith("6.1."):
        pytest.skip("both kernels have it")
    hosts.python("box", TRY, host="destination")
    hosts.said_next("destination")
    error = hosts.refuse("box", source="destination", destination="source")
    assert "MAP_DROPPABLE" in str(error)
    assert "Linux 6.11 or later" in str(error)
    assert hosts.said_next("destination")


@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.POST_COPY])
def test_a_profile_of_ones_own(hosts: Hosts, strategy: Strategy) -> None:
    check_own_profile(hosts, strategy)


def check_own_profile(hosts: Hosts, strategy: Strategy) -> None:
    """A profile that the destination has not loaded, or has loaded otherwise, is refused; the same confines there."""
    for host in DOCKER_HOSTS:
        hosts.sh(host, "apparmor_parser --remove /root/profile 2>/dev/null || true")
        hosts[host].put("/root/profile", PROFILE.encode(), mode=0o600)
    hosts.sh("source", LOAD)
    hosts.python("box", TRY, options=["--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=sealift-own"])
    assert hosts.said_next("source") == OWN
    with untouched(hosts, "box"):
        error = hosts.refuse("box")
    assert isinstance(error, Refused)
    (reason,) = error.reasons
    assert "destination: it has not loaded the profile sealift-own" in reason
    hosts["destination"].put("/root/profile", PROFILE.replace("deny mount", "mount").encode(), mode=0o600)
    hosts.sh("destination", LOAD)
    (reason,) = hosts.refuse("box").reasons
    assert "destination: it has loaded another policy as the profile sealift-own" in reason
    assert "raw_data" in reason
    hosts.sh(
        "destination", "base64 -d >/root/policy <<E\n" + hosts.sh("source", POLICY) + "\nE\n" + LOAD_BINARY
    )
    for here, there in BOTH_WAYS:
        hosts.engine("box", source=here, destination=there, strategy=strategy)
        assert hosts.said_next(there) == OWN


@pytest.mark.whole
def test_the_same_generic_kernel_with_apparmor_and_a_host_without() -> None:
    """One boot of two VMs, of which one has AppArmor."""
    with with_kernels("generic:cloud") as hosts:
        hosts.python("box", TRY, options=["--cap-add", "SYS_ADMIN"])
        assert hosts.said_next("source") == DOCKERS
        with untouched(hosts, "box"):
            error = hosts.refuse("box")
        assert isinstance(error, Refused)
        (reason,) = error.reasons
        assert "destination: it has no AppArmor" in reason
        assert "docker-default" in reason
