"""A network namespace that Docker is to fill: nobody gets an answer from it before its port is detached."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent.network import sandbox
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {
    "net.ipv4.ip_default_ttl": "77",
    "net.ipv4.conf.two.log_martians": "1",  # of an interface that Docker makes
    "net.ipv6.conf.all.disable_ipv6": "0",
}
SPEC: dict[str, Any] = {"linux": {"namespaces": [{"type": "network"}], "sysctl": SETTINGS}}
ASK = "import socket; s = socket.socket(); s.settimeout(0.5); s.connect(('192.0.2.2', 7))"


def inside(namespace: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["nsenter", f"--net={namespace}", *words], capture_output=True, text=True, check=False, timeout=30
    )


@pytest.fixture
def made() -> Iterator[sandbox.Sandbox]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    namespace = sandbox.make(SPEC)
    yield namespace
    namespace.close()


@pytest.fixture
def neighbour(made: sandbox.Sandbox) -> Iterator[str]:
    """A network namespace at the other end of a veth pair: 192.0.2.1 here, 192.0.2.2 in the one that was made."""
    with (
        subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as here,
        subprocess.Popen(["nsenter", f"--net={made.path}", "cat"], stdin=subprocess.PIPE) as there,
    ):
        paths = [Path(f"/proc/{one.pid}/ns/net") for one in (here, there)]
        own = Path("/proc/self/ns/net").readlink()
        while own in [path.readlink() for path in paths]:
            time.sleep(0.01)
        pair = f"ip link add one netns {here.pid} type veth peer name two netns {there.pid}"
        subprocess.run(pair.split(), check=True)
        for path, name, address in ((paths[0], "one", "192.0.2.1/24"), (paths[1], "two", "192.0.2.2/24")):
            for words in (f"ip address add {address} dev {name}", f"ip link set {name} up"):
                assert inside(str(path), *words.split()).returncode == 0
        yield str(paths[0])
        here.kill()
        there.kill()


def answer(neighbour: str) -> str:
    """What somebody is told who asks for a connection."""
    done = inside(neighbour, sys.executable, "-c", ASK)
    return done.stderr.splitlines()[-1].split(":")[0]


def test_nobody_is_answered_until_it_is_opened(made: sandbox.Sandbox, neighbour: str) -> None:
    assert answer(neighbour) == "TimeoutError"
    made.open()
    assert answer(neighbour) == "ConnectionRefusedError"


def test_who_knows_its_hardware_address_is_not_answered_either(made: sandbox.Sandbox, neighbour: str) -> None:
    shown = inside(made.path, "ip", "-brief", "link", "show", "two").stdout.split()
    words = ["ip", "neighbour", "replace", "192.0.2.2", "lladdr", shown[2], "dev", "one", "nud", "permanent"]
    assert inside(neighbour, *words).returncode == 0
    assert answer(neighbour) == "TimeoutError"


def test_nothing_of_it_is_left_once_it_is_open(made: sandbox.Sandbox, neighbour: str) -> None:
    assert neighbour
    made.open()
    assert inside(made.path, "nft", "list", "tables").stdout == ""
    assert inside(made.path, "cat", "/proc/sys/net/ipv4/conf/all/arp_ignore").stdout == "0\n"


def setting(made: sandbox.Sandbox, name: str) -> str:
    return inside(made.path, "cat", f"/proc/sys/net/{name}").stdout.strip()


def test_it_has_the_container_s_settings_before_docker_fills_it_and_after(
    made: sandbox.Sandbox, neighbour: str
) -> None:
    assert setting(made, "ipv4/ip_default_ttl") == "77"
    # As Docker does on an interface that has no address of IPv6.
    assert inside(made.path, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/two/disable_ipv6").returncode == 0
    made.open()
    assert neighbour
    assert setting(made, "ipv4/conf/two/log_martians") == "1"
    assert setting(made, "ipv6/conf/two/disable_ipv6") == "0"


def test_an_address_of_ipv6_can_be_bound_at_once_and_later_ones_are_asked_for_as_usual(
    made: sandbox.Sandbox, neighbour: str
) -> None:
    assert neighbour
    assert inside(made.path, "ip", "address", "add", "2001:db8::2/64", "dev", "two").returncode == 0
    assert "tentative" not in inside(made.path, "ip", "-6", "address", "show", "dev", "two").stdout
    made.open()
    for interface, asks in (("two", "1"), ("default", "1"), ("lo", "-1")):
        assert setting(made, f"ipv6/conf/{interface}/accept_dad") == asks
    assert inside(made.path, "ip", "address", "add", "2001:db8::3/64", "dev", "two").returncode == 0
    assert "tentative" in inside(made.path, "ip", "-6", "address", "show", "dev", "two").stdout


def test_nothing_answers_over_ipv6_either_until_it_is_opened(made: sandbox.Sandbox, neighbour: str) -> None:
    assert inside(neighbour, "ip", "address", "add", "2001:db8::1/64", "dev", "one", "nodad").returncode == 0
    assert inside(made.path, "ip", "address", "add", "2001:db8::2/64", "dev", "two").returncode == 0
    shown = inside(made.path, "ip", "-brief", "link", "show", "two").stdout.split()
    words = [
        "ip",
        "neighbour",
        "replace",
        "2001:db8::2",
        "lladdr",
        shown[2],
        "dev",
        "one",
        "nud",
        "permanent",
    ]
    assert inside(neighbour, *words).returncode == 0
    ask = ASK.replace("socket.socket()", "socket.socket(socket.AF_INET6)").replace("192.0.2.2", "2001:db8::2")
    found = inside(neighbour, sys.executable, "-c", ask).stderr.splitlines()[-1].split(":")[0]
    assert found == "TimeoutError"
    made.open()
    found = inside(neighbour, sys.executable, "-c", ask).stderr.splitlines()[-1].split(":")[0]
    assert found == "ConnectionRefusedError"


def test_a_bundle_that_shares_a_network_is_refused() -> None:
    shared: dict[str, Any] = {"linux": {"namespaces": [{"type": "network", "path": "/proc/1/ns/net"}]}}
    with pytest.raises(AgentError, match="no network namespace of its own"):
        sandbox.make(shared)


def test_a_bundle_without_a_hook_stays_as_it_is(made: sandbox.Sandbox) -> None:
    spec: dict[str, Any] = {"hooks": {"prestart": [{"args": ["somebody-else"]}]}}
    assert not sandbox.fill_by_hook(spec, made)
    assert spec == {"hooks": {"prestart": [{"args": ["somebody-else"]}]}}
