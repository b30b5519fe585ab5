"""TCP connections within a container, half-closed ones with clients, and those between members of a group.

Whatever state they are in and whatever waits in their queues, a move changes nothing of them.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import connected
import half_closed
import pytest
from groups import armed
from groups import begin as begin_together
from hosts import kill_agent

from sealift.errors import SealiftError
from sealift.migration import recovery
from sealift.migration.request import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

WITH_IPV6 = ["--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--sysctl", "net.ipv6.conf.lo.disable_ipv6=0"]
THERE_AND_BACK = (("source", "destination"), ("destination", "source"))
STRATEGIES = [Strategy.AUTO, pytest.param(Strategy.POST_COPY, marks=pytest.mark.whole)]

STALL_S = 0.7
"""A kernel that sends a lost packet again waits a second first: it has not measured the restored connection."""


def begin(hosts: Hosts, program: str) -> None:
    """A container whose own address is among those that it connects to."""
    where = 'f"127.0.0.1 ::1 {socket.gethostbyname(socket.gethostname())}"'
    hosts.python("box", f"import socket, sys; sys.argv[1:] = [{where}]\n{program}", options=WITH_IPV6)
    wait_for(hosts, "source", "box", "ready")


def wait_for(hosts: Hosts, host: str, container: str, word: str) -> None:
    """Until the container has printed it."""
    hosts.sh(
        host,
        'for i in $(seq 300); do docker logs "$1" 2>&1 | grep -q "$2" && exit; sleep 0.1; done; exit 1',
        container,
        word,
    )


def asked(hosts: Hosts, host: str, container: str = "box", count: int = 1) -> list[dict[str, Any]]:
    """What its processes say when they are told to look."""
    hosts.docker(host, "kill", "--signal", "USR1", container)
    until = time.monotonic() + 90
    while True:
        said = [line for line in hosts.docker(host, "logs", container).splitlines() if line.startswith("{")]
        if len(said) >= count:
            return [json.loads(line) for line in said]
        assert time.monotonic() < until, hosts.docker(host, "logs", container, check=False)
        time.sleep(0.1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_connections_within_a_container_keep_every_byte_and_every_end(
    hosts: Hosts, strategy: Strategy
) -> None:
    begin(hosts, connected.PAIRS)
    for source, destination in THERE_AND_BACK:
        hosts.engine("box", None, source, destination, strategy=strategy)
    for said in asked(hosts, "source", count=2):
        assert said["wrong"] == {}
        assert said["ends"] == 3 * 18
        assert said["waited_s"] < 2, "a connection had stopped"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_streams_within_a_container_go_on_at_once(hosts: Hosts, strategy: Strategy) -> None:
    begin(hosts, connected.STREAMS)
    report = hosts.engine("box", strategy=strategy)
    (said,) = asked(hosts, "destination")
    assert (said["wrong"], said["stuck"]) == ({}, [])
    late = {name: s for name, s in said["waited_s"].items() if s > report.frozen_ms / 1000 + STALL_S}
    assert not late, f"frozen for {report.frozen_ms:.0f} ms"


@pytest.mark.whole
@pytest.mark.parametrize(("moment", "victim"), [("frozen", "destination"), ("dumped", "source")])
def test_streams_go_on_at_the_source_after_a_roll_back(hosts: Hosts, moment: str, victim: str) -> None:
    begin(hosts, connected.STREAMS)
    with pytest.raises(SealiftError):
        hosts.engine("box", {moment: kill_agent(hosts, victim, victim)})
    until = time.monotonic() + 60
    while recovery.recover(hosts.inventory):
        assert time.monotonic() < until
    (said,) = asked(hosts, "source")
    assert (said["wrong"], said["stuck"]) == ({}, [])
    inside = "nsenter -n -t $(docker inspect -f {{.State.Pid}} box) nft list tables"
    assert "sealift" not in hosts.sh("source", inside)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_half_closed_connections_with_clients_survive(hosts: Hosts, strategy: Strategy) -> None:
    hosts.python("box", half_closed.SERVER)
    wait_for(hosts, "source", "box", "listening")
    with hosts["client"].open(["python3", "-c", half_closed.CLIENTS, hosts.assigned[-1]]) as channel:
        channel.settimeout(90)
        lines = channel.makefile("r")
        assert lines.readline() == "ready\n"
        wait_for(hosts, "source", "box", "ready")
        hosts.engine("box", strategy=strategy)
        channel.sendall(b"\n")
        (said,) = asked(hosts, "destination")
        found = json.loads(lines.readline())
    assert (said["wrong"], found["wrong"]) == ({}, {})
    assert max(found["took_s"].values()) < 2, "a connection had stopped"


def test_connections_among_members_of_a_group_keep_every_byte_and_every_end(hosts: Hosts) -> None:
    hosts.python("far", connected.MEMBER)
    address = hosts.assigned[-1]
    wait_for(hosts, "source", "far", "listening")
    hosts.python("near", connected.MEMBER, address)
    for name in ("near", "far"):
        wait_for(hosts, "source", name, "ready")
    with armed(hosts, "near", "far") as (_, cutovers):
        assert not begin_together(cutovers)
    hosts.docker("destination", "kill", "--signal", "USR1", "near")
    (far,), (near,) = asked(hosts, "destination", "far"), asked(hosts, "destination", "near")
    assert (near["wrong"], far["wrong"]) == ({}, {})
    assert (near["got"], far["got"]) == (far["sent"], near["sent"])


CLOSED = r"""
import signal, socket, time
def pair():
    with socket.create_server(("127.0.0.1", 0)) as door:
        near = socket.create_connection(door.getsockname())
        far = door.accept()[0]
    near.setblocking(False)
    sent = 0
    try:
        while True:
            sent += near.send(bytes(65536))
    except BlockingIOError:
        pass
    near.close()
    return far, sent
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
slow, sent = pair()
stuck, _ = pair()
print("ready", flush=True)
got = 0
while piece := slow.recv(20_000):
    got += len(piece)
    time.sleep(0.005)
print("got", got == sent, flush=True)
signal.sigwait([signal.SIGUSR1])
try:
    while stuck.recv(1 << 20):
        pass
    print('{"end": "in order"}', flush=True)
except OSError as failure:
    print('{"end": "%s"}' % failure.strerror, flush=True)
signal.pause()
"""


def test_a_closed_connection_sends_the_rest_first_and_one_that_cannot_is_in_the_report(hosts: Hosts) -> None:
    hosts.python("box", CLOSED)
    wait_for(hosts, "source", "box", "ready")
    report = hosts.engine("box")
    wait_for(hosts, "destination", "box", "got True")
    assert [
        warning
        for warning in report.warnings
        if warning.startswith("1 connections that the program had closed")
    ]
    (said,) = asked(hosts, "destination")
    assert said == {"end": "Connection reset by peer"}


CONNECTING = r"""
import json, signal, socket, sys, threading, time
done = {}
def connect(name, timeout_s):
    with socket.socket() as one:
        one.settimeout(timeout_s)
        try:
            one.connect((sys.argv[1], 7081))
            done[name] = "connected"
        except OSError as failure:
            done[name] = str(failure)
for name, timeout_s in (("waits", None), ("with a limit", 600)):
    threading.Thread(target=connect, args=(name, timeout_s), daemon=True).start()
time.sleep(0.2)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
until = time.monotonic() + 30
while len(done) < 2 and time.monotonic() < until:
    time.sleep(0.1)
print(json.dumps(done), flush=True)
signal.pause()
"""

LISTENING = (
    "import socket, time\ndoor = socket.create_server(('', 7081)); print('up', flush=True); time.sleep(60)"
)


def test_a_program_that_is_connecting_goes_on_connecting(hosts: Hosts) -> None:
    drop = "iptables -w {} DOCKER-USER -p tcp --dport 7081 -j DROP"
    for host in ("source", "destination"):
        hosts.sh(host, drop.format("-I"))
    try:
        server = hosts.inventory.machine("client").address
        hosts.python("box", CONNECTING, server)
        wait_for(hosts, "source", "box", "ready")
        with hosts["client"].open(["python3", "-c", LISTENING]) as channel:
            assert channel.makefile("r").readline() == "up\n"
            hosts.engine("box")
            hosts.sh("destination", drop.format("-D"))
            (said,) = asked(hosts, "destination")
        assert said == {"waits": "connected", "with a limit": "connected"}
    finally:
        for host in ("source", "destination"):
            hosts.sh(host, drop.format("-D"), check=False)
