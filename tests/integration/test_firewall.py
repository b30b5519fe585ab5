"""Who may talk to what listens on a host: the tunnel's peers, at its tunnel address, and nobody else there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from attack import GUEST_PORT
from hosts import counting

from benchmarks.faults.faults import agent
from sealift.attestation.attest import attest, keystore_of
from sealift.attestation.provision import provision
from sealift.attestation.record import pinned
from sealift.host import ssh
from sealift.lab import images, lab
from sealift.lab.layout import CLIENT, CLIENTS, DESTINATION, GATEWAY, SOURCE
from sealift.migration.check import check
from sealift.migration.checks.finding import Answer
from sealift.model import Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.migration.session import Session

pytestmark = [pytest.mark.root, pytest.mark.netns]

GUARDED = (SOURCE, DESTINATION, GATEWAY)
SSH_PORT = 22

SCAN = """
import errno, json, select, socket, sys, time
tried = {}
for address, port in json.loads(sys.argv[1]):
    one = socket.socket()
    one.setblocking(False)
    if one.connect_ex((address, port)) in (0, errno.EINPROGRESS):
        tried[one] = (address, port)
waiting, opened, until = set(tried), [], time.monotonic() + 1.5
while waiting and (left := until - time.monotonic()) > 0:
    for one in select.select([], list(waiting), [], left)[1]:
        waiting.discard(one)
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            opened.append(tried[one])
print(json.dumps(opened))
"""
"""Connects to every address and port at once, and keeps what it has until it ends."""


class Scanner:
    """Connects to everything that listens, from where strangers are."""

    def __init__(self, hosts: Hosts, neighbour: ssh.Connection) -> None:
        self.hosts, self.neighbour = hosts, neighbour
        self.found: dict[str, set[tuple[str, int]]] = {}
        self.ports: dict[str, set[int]] = {}

    def targets(self) -> list[tuple[str, int]]:
        """Each host's addresses with each port on which anything listens there."""
        pairs = []
        for host in GUARDED:
            listening = self.hosts.sh(host.name, "ss -Htln | awk '{ print $4 }'").split()
            ports = {int(one.rpartition(":")[2]) for one in listening}
            self.ports.setdefault(host.name, set()).update(ports)
            addresses = self.hosts.sh(host.name, 'ip -4 -o addr | awk \'{ sub("/.*", "", $4); print $4 }\'')
            pairs += [(ip, port) for ip in addresses.split() if ip != "127.0.0.1" for port in ports]
        return pairs

    def scan(self, _: object = None) -> None:
        """From everywhere at the same time."""
        pairs = json.dumps(self.targets())
        places: dict[str, tuple[ssh.Connection, list[str]]] = {
            "a neighbour": (self.neighbour, []),
            "a client": (self.hosts["client"], []),
        }
        for host in ("source", "destination"):
            for box in ("on-bridge", "on-sealift"):
                places[f"{box} at {host}"] = (self.hosts[host], ["docker", "exec", box])
        with ThreadPoolExecutor(len(places)) as pool:
            answers = {
                name: pool.submit(where.run, [*how, "python3", "-c", SCAN, pairs])
                for name, (where, how) in places.items()
            }
        for name, answer in answers.items():
            self.found.setdefault(name, set()).update(map(tuple, json.loads(answer.result().stdout)))

    def intruders(self) -> dict[str, set[tuple[str, int]]]:
        """Who has come in where, but for SSH at an address that is not the tunnel's."""
        tunnel = {str(host.tunnel_address) for host in GUARDED}
        return {
            name: bad
            for name, found in self.found.items()
            if (bad := {(ip, port) for ip, port in found if port != SSH_PORT or ip in tunnel})
        }


@pytest.fixture
def scanner(hosts: Hosts) -> Iterator[Scanner]:
    """Strangers who know the way: a neighbour, a client, and containers on both networks of both hosts."""
    for host in ("source", "destination"):
        tag = images.provide(hosts[host], images.PYTHON, say=print)
        sleep = [tag, "python3", "-c", "import time; time.sleep(1e9)"]
        hosts.docker(host, "run", "-d", "--name", "on-bridge", *sleep)
        place = ["--network", hosts.network, "--ip", hosts.address(host)]
        hosts.docker(host, "run", "-d", "--name", "on-sealift", *place, *sleep)
    network = str(hosts.inventory.network.tunnel)
    with ssh.connected("provider", lab.machine(hosts.inventory, "provider")) as neighbour:
        for host in GUARDED:
            neighbour.run(["ip", "route", "replace", str(host.tunnel_address), "via", str(host.address)])
        hosts.sh("client", f"ip route replace {network} via {CLIENTS[1]}")
        try:
            yield Scanner(hosts, neighbour)
        finally:
            for host in GUARDED:
                neighbour.run(["ip", "route", "del", str(host.tunnel_address)])
            hosts.sh("client", f"ip route del {network}")


def judge(scanner: Scanner) -> None:
    print({host: sorted(ports) for host, ports in scanner.ports.items()})
    assert scanner.intruders() == {}
    for name, found in scanner.found.items():  # they would have come in where they may
        assert found & {(str(GATEWAY.address), SSH_PORT), (str(GATEWAY.clients_address), SSH_PORT)}, name


def test_nobody_but_a_peer_connects_to_a_door_of_a_migration(hosts: Hosts, scanner: Scanner) -> None:
    address = hosts.redis("redis", memory_mb=5)
    with counting(hosts, address) as found:
        hosts.engine("redis", {"armed": scanner.scan}, strategy=Strategy.STOP_AND_COPY, compress=True)
    assert found[0].intact, found[0].summary()
    assert hosts.owner(address) == "destination"
    judge(scanner)
    assert len(scanner.ports["destination"] - {SSH_PORT}) >= 3, "rsync, where pages come in, the guest's"
    assert len(scanner.ports["gateway"] - {SSH_PORT}) == 1, "the decider"


DUMP_LOGS = "cat /run/sealift/dumps/*/*/dump.log"
SIGNAL = """
for p in /proc/[0-9]*; do
	case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in %s) kill -%s ${p#/proc/} ;; esac
done
"""


def test_nobody_but_a_peer_gets_the_pages_of_a_post_copy(hosts: Hosts, scanner: Scanner) -> None:
    address = hosts.redis("redis", memory_mb=5)
    receiver = agent("destination")

    def scan() -> None:
        """While the source has dumped, and who is to fetch the pages does not come."""
        try:
            until = time.monotonic() + 10
            while "Starting lazy pages server" not in hosts.sh("source", DUMP_LOGS, check=False):
                assert time.monotonic() < until, "the source has not dumped"
                time.sleep(0.05)
            scanner.scan()
        finally:
            hosts.sh("destination", SIGNAL % (receiver, "CONT"))

    def stop(_: Session) -> None:
        hosts.sh("destination", SIGNAL % (receiver, "STOP"))
        scans.append(pool.submit(scan))

    scans: list[Future[None]] = []
    with counting(hosts, address) as found, ThreadPoolExecutor(1) as pool:
        hosts.engine("redis", {"armed": stop}, strategy=Strategy.POST_COPY)
        scans[0].result()
    assert found[0].intact, found[0].summary()
    assert hosts.owner(address) == "destination"
    judge(scanner)


RAW = """
import json, socket, struct, sys
(gateway, address), reach = sys.argv[1:3], json.loads(sys.argv[3])
socket.create_connection((gateway, 22)).close()
mac = next(line.split()[3] for line in open("/proc/net/arp") if line.startswith(gateway + " "))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0800)
wire.bind(("eth0", 0x0800))
wire.settimeout(1)
us = wire.getsockname()[4]

def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

answered = []
for target, port in reach:
    here, there = socket.inet_aton(address), socket.inet_aton(target)
    tcp = [40000 + port % 1000, port, 1, 0, 5 << 4, 2, 8192, 0, 0]
    pseudo = here + there + struct.pack(">BBH", 0, 6, 20)
    tcp[7] = checksum(pseudo + struct.pack(">HHIIBBHHH", *tcp))
    ip = [0x45, 0, 40, 1, 0, 64, 6, 0, here, there]
    ip[7] = checksum(struct.pack(">BBHHHBBH4s4s", *ip))
    frame = bytes.fromhex(mac.replace(":", "")) + us + bytes([8, 0])
    wire.send(frame + struct.pack(">BBHHHBBH4s4s", *ip) + struct.pack(">HHIIBBHHH", *tcp))
    try:
        while True:
            packet = wire.recv(2048)[14:]
            source, flags = struct.unpack_from(">H", packet, 20)[0], packet[33]
            if packet[12:16] == there and source == port and flags & 0x12 == 0x12:
                answered.append((target, port))
                break
    except TimeoutError:
        pass
print(json.dumps(answered))
"""
"""Asks for connections by frames of its own making, which Docker lets any container do (CAP_NET_RAW)."""


@pytest.mark.parametrize("box", ["on-bridge", "on-sealift"])
def test_a_container_does_not_reach_what_listens_on_the_hosts_loopback(
    hosts: Hosts, scanner: Scanner, box: str
) -> None:
    network = next(iter(hosts.inspect("destination", box)["NetworkSettings"]["Networks"].values()))
    targets = [(network["Gateway"], SSH_PORT), ("127.0.0.1", GUEST_PORT), ("127.0.0.1", SSH_PORT)]
    where = [network["Gateway"], network["IPAddress"], json.dumps(targets)]
    answered = json.loads(hosts.docker("destination", "exec", box, "python3", "-c", RAW, *where))
    assert answered == [[network["Gateway"], SSH_PORT]]


def test_what_may_pass_passes(hosts: Hosts, scanner: Scanner) -> None:
    """Clients reach workloads, workloads reach the world, the gateway reaches workloads, and peers each other."""
    address = hosts.redis("redis")
    ask = "exec 3<>/dev/tcp/$1/$2; printf 'PING\\r\\n' >&3; head -c 5 <&3"
    for asker in ("client", "gateway"):
        done = hosts[asker].run(["bash", "-c", ask, "bash", address, "6379"])
        assert done.stdout == "+PONG", asker
    for host, peer in (("source", DESTINATION), ("destination", GATEWAY), ("gateway", SOURCE)):
        hosts.sh(host, f"ping -c 1 -W 5 {peer.tunnel_address}")
    hosts.sh("gateway", f"ping -c 1 -W 5 {address}")
    reach = json.dumps([(str(CLIENT.clients_address), SSH_PORT)])
    assert json.loads(hosts.docker("source", "exec", "on-sealift", "python3", "-c", SCAN, reach))


LISTED = "nft list table ip sealift; ip rule show; ip route show table 78"


@pytest.mark.parametrize("host", ["destination", "gateway"])
def test_the_rules_are_the_same_after_every_call_and_go_with_the_tunnel(hosts: Hosts, host: str) -> None:
    network = "/usr/libexec/sealift/network"
    before, others = hosts.sh(host, LISTED), hosts.sh(host, "iptables-save | grep -v '^[#:]'")
    assert "hook input" in before
    for call in ("up", "up", "rules"):
        hosts.sh(host, f"{network} {call}")
        assert hosts.sh(host, LISTED) == before
    assert hosts.sh(host, "iptables-save | grep -v '^[#:]'") == others
    try:
        hosts.sh(host, f"{network} down")
        left = hosts.sh(host, f"{LISTED} 2>&1", check=False)
        assert "hook" not in left
        assert "lookup 78" not in left
    finally:
        hosts.sh(host, f"{network} up")
    assert hosts.sh(host, LISTED) == before


def test_beside_rules_that_drop_whatever_they_do_not_know(hosts: Hosts) -> None:
    """As firewalld and ufw have them: their drops stay, and what they let in is let in."""
    mine = "INPUT -m comment --comment owner"
    lets = [
        f"{mine} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        f"{mine} -p tcp -m tcp --dport 22 -j ACCEPT",
        f"{mine} -p udp -m udp --dport 51820 -j ACCEPT",
        f"{mine} -i lo -j ACCEPT",
        f"{mine} -i sealift-wg -j ACCEPT",
    ]
    address = hosts.redis("redis")
    try:
        for host in ("source", "destination"):
            hosts.sh(host, "set -e; " + "; ".join(f"iptables -w -A {rule}" for rule in lets))
            hosts.sh(host, "iptables -w -P INPUT DROP && iptables -w -P FORWARD DROP")
        with counting(hosts, address) as found:
            hosts.engine("redis")
        assert found[0].intact, found[0].summary()
    finally:
        for host in ("source", "destination"):
            hosts.sh(host, "iptables -w -P INPUT ACCEPT; iptables -w -P FORWARD ACCEPT")
            hosts.sh(host, "; ".join(f"iptables -w -D {rule}" for rule in lets))


def test_without_the_rules_nothing_is_migrated(hosts: Hosts) -> None:
    hosts.redis("redis")
    guarded_hosts = ("source", "destination", "gateway")
    for host in guarded_hosts:
        hosts.sh(host, "nft delete table ip sealift")
    try:
        refused = hosts.refuse("redis")
        assert refused.step == "preflight"
        for host in ("source", "gateway"):
            assert f"{host}: its rules" in str(refused)
            assert f"sealift host prepare {host}" in str(refused)
        # What proves itself is given its rules each time.
        assert "destination: its rules" not in str(refused)
        assert "hook input" in hosts.sh("destination", LISTED)
    finally:
        for host in guarded_hosts:
            hosts.sh(host, "/usr/libexec/sealift/network rules")


def test_prepare_brings_script_and_rules(hosts: Hosts) -> None:
    script = "/usr/libexec/sealift/network"
    content = hosts.sh("gateway", f"cat {script}")
    for host in ("source", "gateway"):
        hosts.sh(host, f"nft delete table ip sealift; echo 'exit 1' >{script}")
        command = [sys.executable, "-m", "cli", "host", "prepare", host]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert f"{host}: {script} written" in done.stderr
        assert hosts.sh(host, f"cat {script}") == content
        assert "hook input" in hosts.sh(host, LISTED)


WAYS = {
    "address add 10.78.0.2/25 dev eth0": "the address 10.78.0.2/25 on eth0",
    "address add 10.0.0.9/1 dev eth0": "the address 10.0.0.9/1 on eth0",
    "route add 10.78.0.1/32 via 198.18.0.4": "the route 10.78.0.1 in the table main by eth0",
    "route add 10.77.1.0/24 via 198.18.0.4": "the route 10.77.1.0/24 in the table main by eth0",
    "route add 10.78.0.0/31 dev eth0 table 9": "the route 10.78.0.0/31 in the table 9 by eth0",
}
"""What a provider may configure, and the policy rules beat."""

OVERRIDES = {
    "address add 10.78.0.1/32 dev eth0": "the address 10.78.0.1/32 on eth0",
    "rule add to 10.78.0.1 lookup main priority 5": "the policy rule 5 (table main)",
}
"""What nothing but a look finds."""


@pytest.mark.parametrize("claims", [WAYS, OVERRIDES], ids=["ways", "overrides"])
def test_a_vm_whose_provider_claims_the_tunnel_is_given_nothing(hosts: Hosts, claims: dict[str, str]) -> None:
    given = "stat -c '%i %y' /etc/sealift/network.env /etc/sealift/wireguard.conf"
    hosts.redis("redis")
    before = hosts.sh("destination", given)
    for command in claims:
        hosts.sh("destination", f"ip {command}")
    try:
        refused = hosts.refuse("redis")
        assert (refused.step, refused.host) == ("provision keys", "destination")
        assert set(refused.reasons) == set(claims.values())
        assert "Nothing was released" in str(refused)
        assert hosts.sh("destination", given) == before
        checked = check(hosts.inventory, hosts.request("redis"))
        (said,) = [one for one in checked.findings if one.host == "destination" and one.resource == "network"]
        assert said.answer is Answer.NO
        assert all(claim in said.what for claim in claims.values())
        for peer in (GATEWAY, SOURCE):  # what comes after the look does not win, either
            way = hosts.sh("destination", f"ip route get {peer.tunnel_address}")
            assert claims is OVERRIDES or "dev sealift-wg" in way
    finally:
        for command in reversed(claims):
            hosts.sh("destination", f"ip {command.replace(' add ', ' del ')}", check=False)
    record, connection = attest(hosts.inventory, "destination")
    with connection:
        provision(pinned(hosts.inventory), record, connection, keystore_of(hosts.inventory))
    assert hosts.sh("destination", given) != before


def test_without_its_interface_nothing_for_the_tunnel_leaves(hosts: Hosts) -> None:
    """A default route would take it to the provider, in the clear."""
    hosts.sh("destination", "ip route add default via 198.18.0.4; ip link set sealift-wg down")
    try:
        way = hosts["destination"].run(["ip", "route", "get", "10.78.0.1"], check=False)
        assert (way.status, "No route to host" in way.stderr) == (2, True)
    finally:
        hosts.sh("destination", "ip route del default; /usr/libexec/sealift/network up")
    hosts.sh("destination", "for _ in 1 2 3 4 5; do ping -c 1 -W 2 10.78.0.1 && exit; done; exit 1")
