"""What is decided is decided, whether the gateway's WireGuard does it or not; and no restart policy gets in between."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hosts import (
    DOCKER_HOSTS,
    SLEEPER,
    check_restart_policy_after_power_loss,
    copies,
    counting,
    kill_agent,
    policy,
    untouched,
)

from sealift.errors import SealiftError
from sealift.host import ssh
from sealift.host.agents import Agent
from sealift_agent.protocol import Assign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hosts import Hosts

    from sealift.migration.session import Session

pytestmark = [pytest.mark.root, pytest.mark.netns]

STRANGER = "A" * 43 + "="
RECORD = "/var/lib/sealift/gateway/routes.json"

# wireguard-go as the kernel's WireGuard is: told by `wg` alone, which gives each peer's whole list. While the file
# `refuse` is there it takes no change at all.
IN_BETWEEN = """
import os, socket, sys, threading
path, real = "/var/run/wireguard/sealift-wg.sock", "/var/run/wireguard/real"
os.rename(path, real)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(8)
print("ready", flush=True)

def answer(here):
    with here:
        asked = b""
        while not asked.endswith(b"\\n\\n"):
            if not (more := here.recv(65536)):
                return
            asked += more
        changes = asked.startswith(b"set=1")
        direct = changes and b"replace_allowed_ips" not in asked and b"remove=" not in asked
        if direct or (changes and os.path.exists("/run/refuse")):
            return here.sendall(b"errno=5\\n\\n")
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(real)
            there.sendall(asked)
            said = b""
            while not said.endswith(b"\\n\\n"):
                said += there.recv(65536)
            here.sendall(said)

while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
"""
BACK = 'rm -f /run/refuse; cd /var/run/wireguard && [ -e real ] && mv real sealift-wg.sock; kill "$1" || true'


@pytest.fixture
def told_by_wg(hosts: Hosts) -> Iterator[None]:
    """The gateway's WireGuard is told of each switch by `wg`, as where the kernel has it."""
    with ssh.connected("gateway", hosts.inventory.machine("gateway")) as connection:
        channel = connection.open(["sh", "-c", 'echo $$; exec python3 -c "$1"', "sh", IN_BETWEEN])
        lines = channel.makefile("rb")
        pid = lines.readline().decode().strip()
        assert lines.readline() == b"ready\n"
        yield
        hosts.sh("gateway", BACK, pid)
        channel.close()


@pytest.fixture
def left_behind(hosts: Hosts) -> Iterator[None]:
    """A route on record whose peer WireGuard does not have."""
    edit = "import json, sys; p = sys.argv[1]; r = json.load(open(p)); {}; json.dump(r, open(p, 'w'))"
    add = "r['routes']['10.77.250.1'] = {'peer': sys.argv[2], 'host': 'nowhere'}"
    hosts["gateway"].run(["python3", "-c", edit.format(add), RECORD, STRANGER])
    yield
    hosts["gateway"].run(["python3", "-c", edit.format("r['routes'].pop('10.77.250.1')"), RECORD])


def test_a_stale_route_that_wireguard_refuses_loses_no_container(
    hosts: Hosts, told_by_wg: None, left_behind: None
) -> None:
    address = hosts.redis("redis", memory_mb=5)
    with counting(hosts, address) as found:
        report = hosts.engine("redis")
    assert found[0].intact, found[0].summary()
    assert report.outcome == "committed"
    assert hosts.owner(address) == "destination"
    assert copies(hosts, "redis") == {"destination": "running"}
    assert not any("does not send packets" in warning for warning in report.warnings)


def test_a_switch_that_wireguard_refuses_is_done_as_soon_as_it_can(hosts: Hosts, told_by_wg: None) -> None:
    address = hosts.redis("redis", memory_mb=5)
    hooks: dict[str, Callable[[Session], object]] = {
        "restored": lambda _: hosts.sh("gateway", "(sleep 3; rm /run/refuse) >/dev/null 2>&1 </dev/null &"),
        "armed": lambda _: hosts.sh("gateway", "touch /run/refuse"),
    }
    with counting(hosts, address) as found:
        report = hosts.engine("redis", hooks)
        assert "yet" in report.warnings[-1], report.warnings
        time.sleep(6)
    assert found[0].intact, found[0].summary()
    assert report.outcome == "committed"
    assert copies(hosts, "redis") == {"destination": "running"}
    assert "gateway" not in hosts.sh("gateway", "pgrep -af ' keep$' || true"), "it has ended with its task"


def test_an_address_that_was_given_away_meanwhile_rolls_back(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=5)
    key = hosts.inventory.host("destination").wireguard_key

    def give(to: str, peer: str | None) -> None:
        with Agent(hosts["gateway"], "gateway") as gateway:
            gateway.call(Assign(address, peer, to))

    with untouched(hosts, "redis"):
        with pytest.raises(SealiftError, match="does not belong to the source any more"):
            hosts.engine("redis", {"armed": lambda _: give("destination", key)})
        give("source", hosts.inventory.host("source").wireguard_key)
    assert copies(hosts, "redis") == {"source": "running"}


ON_FAILURE = {"Name": "on-failure", "MaximumRetryCount": 7}


def test_a_restart_policy_rests_from_arming_on_and_arrives_with_the_container(hosts: Hosts) -> None:
    hosts.python("box", SLEEPER, options=["--restart", "on-failure:7"])
    seen: list[Any] = []

    def look(_: Session) -> None:
        assert policy(hosts, "source")["Name"] == "no"
        # Docker says nothing of a container that it is starting. What it does after a reboot is by its files.
        files = [hosts.sh(host, "cat /var/lib/docker/containers/*/hostconfig.json") for host in DOCKER_HOSTS]
        seen.extend(json.loads(file)["RestartPolicy"]["Name"] for file in files)

    hosts.engine("box", {"armed": look})
    assert seen == ["no", "no"]
    assert policy(hosts, "destination") == ON_FAILURE
    assert copies(hosts, "box") == {"destination": "running"}


@pytest.mark.parametrize("role", ["destination", "source"])
def test_a_restart_policy_comes_back_with_a_roll_back(hosts: Hosts, role: str) -> None:
    hosts.python("box", SLEEPER, options=["--restart", "on-failure:7"])
    with untouched(hosts, "box"), pytest.raises(SealiftError):
        hosts.engine("box", {"armed": kill_agent(hosts, role, role)})
    assert policy(hosts, "source") == ON_FAILURE


@pytest.mark.parametrize(("at", "owner"), [("armed", "source"), ("finish", "destination")])
def test_a_source_that_loses_power_starts_no_copy_but_by_the_decision(
    hosts: Hosts, at: str, owner: str
) -> None:
    check_restart_policy_after_power_loss(hosts, at, owner)
