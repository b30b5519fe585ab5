"""The decision with the kernel's own WireGuard, which is told by `wg` alone: a Debian kernel in a VM has it.

The lab's gateway is a namespaced host on this machine's kernel. So the gateway's agent runs in a network namespace of
one of the VMs here, with an interface of that kernel's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hosts import check_restart_policy_after_power_loss

from sealift.host.agents import archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.timeout(1800)]

SET_UP = """
set -e
ip netns add sealift-test
exec ip netns exec sealift-test sh -ec '
ip link set lo up
ip link add sealift-wg type wireguard
for host in a b; do
	wg genkey | wg pubkey >/run/$host.key
done
wg set sealift-wg peer "$(cat /run/a.key)" allowed-ips 10.78.0.10/32,10.77.9.1/32,10.77.9.2/32
wg set sealift-wg peer "$(cat /run/b.key)" allowed-ips 10.78.0.20/32
'
"""
AGENT = """
import json, subprocess, sys, tempfile, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sealift_agent import authenticated, gateway, protocol
from sealift_agent.network import allowed
from sealift_agent.wire import Link

place = Path(tempfile.mkdtemp())
allowed.NETWORK = place / "network.env"
allowed.NETWORK.write_text("WORKLOADS=10.77.0.0/16\\n")
gateway.APPLY_AGAIN_S = 0.1
a, b = (Path(f"/run/{host}.key").read_text().strip() for host in "ab")
routes = {f"10.77.9.{n}": {"peer": a, "host": "source"} for n in (1, 2)}
routes["10.77.9.9"] = {"peer": "A" * 43 + "=", "host": "nowhere"}
(place / "routes.json").write_text(json.dumps({"routes": routes, "decisions": {}}))
record = gateway.Routes(place)
gateway.Keeper(record).start()


def ask(migration, address, *questions):
    move = protocol.Move(migration, address, a, b, "destination")
    decider = gateway.Decider(record, "127.0.0.1", "t", "11" * 32, move)
    decider.start()
    link = Link.connect("127.0.0.1", decider.port, "t")
    return [authenticated.ask(link, "11" * 32, migration, question, 20) for question in questions]


def has(peer):
    return sorted(allowed.peers()[peer])


found = {"stale": ask("m", "10.77.9.1", "switch", "call_off"), "a": has(a), "b": has(b)}
rename = ["ip", "link", "set"]
subprocess.run([*rename, "sealift-wg", "name", "away"], check=True)  # from here on the kernel refuses
found["refused"] = ask("n", "10.77.9.2", "switch", "call_off")
subprocess.run([*rename, "away", "name", "sealift-wg"], check=True)
until = time.monotonic() + 30
while "10.77.9.2/32" not in has(b) and time.monotonic() < until:
    time.sleep(0.1)
found["later"] = has(b)
found["wireguard"] = Path("/sys/module/wireguard").exists()
print(json.dumps(found))
"""
TAKE_DOWN = "ip netns del sealift-test; rm -f /run/a.key /run/b.key"


@pytest.fixture
def kernel_s(hosts: Hosts) -> Iterator[dict[str, Any]]:
    """What the agent found out in there."""
    content, path = archive()
    hosts["source"].put(path, content)
    hosts.sh("source", SET_UP)
    try:
        words = ["ip", "netns", "exec", "sealift-test", "python3", "-c", AGENT, path]
        yield json.loads(hosts["source"].run(words, timeout_s=300).stdout)
    finally:
        hosts.sh("source", TAKE_DOWN)


def test_what_the_kernel_s_wireguard_refuses_changes_no_answer(kernel_s: dict[str, Any]) -> None:
    found = kernel_s
    assert found["wireguard"], "it is the kernel's"
    assert found["stale"] == [{"outcome": "committed"}, {"outcome": "committed"}]
    assert found["a"] == ["10.77.9.2/32", "10.78.0.10/32"]
    assert found["b"] == ["10.77.9.1/32", "10.78.0.20/32"]
    first, second = found["refused"]
    assert first["outcome"] == second["outcome"] == "committed"
    assert "failed" in first["routes"]
    assert found["later"] == ["10.77.9.1/32", "10.77.9.2/32", "10.78.0.20/32"]


@pytest.mark.whole
@pytest.mark.parametrize(("at", "owner"), [("armed", "source"), ("finish", "destination")])
def test_a_vm_that_loses_power_starts_no_copy_but_by_the_decision(hosts: Hosts, at: str, owner: str) -> None:
    check_restart_policy_after_power_loss(hosts, at, owner)
