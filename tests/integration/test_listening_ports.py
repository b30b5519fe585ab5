"""Whoever knows no token gets nothing from, and disturbs nothing at, anything that listens during a migration."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hosts import counting

from sealift.host.agents import Agent
from sealift.model import Strategy
from sealift_agent.admission import GREETING_BYTES, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift_agent.protocol import Order

pytestmark = [pytest.mark.root, pytest.mark.netns]

SCANNER = Path(__file__).parents[1] / "scanner.py"
PLACE = "/run/scanner.py"
HOSTS = ("source", "destination", "gateway")
SCAN_S = 120
RSYNC = re.compile(
    rb"@RSYNCD: [\d. a-z]+\n"
    rb"(@RSYNCD: EXIT\n|@RSYNCD: AUTHREQD \S+\n(@ERROR: auth failed on module layer\n)?|@ERROR: [^\n]*\n)?"
)
"""Its greeting, and no for an answer: no name of a module."""

OPENED = {"receive_rate", "receive_image", "prepare", "start_page_server", "read_pages", "decide"}
"""Orders after which something listens: what they return says where."""

Answers = dict[str, list[str]]


@contextmanager
def scanned(hosts: Hosts) -> Iterator[dict[str, Answers]]:
    """Somebody untrusting on each host tries all that begins to listen there. What he got: by host and port."""
    found: dict[str, Answers] = {}
    ready = threading.Barrier(len(HOSTS) + 1)
    channels = {}

    def scan(host: str) -> None:
        hosts[host].put(PLACE, SCANNER.read_bytes())
        channels[host] = hosts[host].open(["timeout", "300", "python3", PLACE, str(SCAN_S)])
        lines = channels[host].makefile("rb")
        assert lines.readline() == b"ready\n"
        ready.wait(20)
        found[host] = json.loads(lines.readline())

    scanners = [threading.Thread(target=scan, args=(host,), daemon=True) for host in HOSTS]
    for each in scanners:
        each.start()
    ready.wait(20)
    try:
        yield found
    finally:
        for host in HOSTS:
            hosts.sh(host, f"touch {PLACE}.end")
        for each in scanners:
            each.join(30)
        for host in HOSTS:
            channels[host].close()
            hosts.sh(host, f"rm {PLACE}*")
    assert set(found) == set(HOSTS)


@contextmanager
def attacked(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Answers]]:
    """A neighbour in the tunnel is at each listener before whom it is for. What he got: by order and port."""
    found: dict[str, Answers] = {}
    call = Agent.call
    neighbour = hosts["source"].open(["timeout", "300", "python3", PLACE, "-"])
    lines = neighbour.makefile("rb")
    turn = threading.Lock()

    def attack(agent: Agent, order: Order[Any], **limits: Any) -> Any:
        result = call(agent, order, **limits)
        name = order.NAME
        if name in OPENED:
            at_gateway = hosts.inventory.gateway.tunnel_address
            where = at_gateway if name == "decide" else hosts.inventory.host("destination").tunnel_address
            ports = (
                [result] if isinstance(result, int) else [result.port, getattr(result, "rsync_port", None)]
            )
            with turn:
                for port in filter(None, ports):
                    neighbour.sendall(f"{where} {port}\n".encode())
                    found.setdefault(name, {}).update(json.loads(lines.readline()))
        return result

    monkeypatch.setattr(Agent, "call", attack)
    try:
        yield found
    finally:
        monkeypatch.undo()
        neighbour.close()


def is_nothing(answer: bytes) -> bool:
    """Whether it is no more than a greeting."""
    nonce_only = answer.startswith(VERSION) and len(answer) == GREETING_BYTES
    return not answer or nonce_only or RSYNC.fullmatch(answer) is not None


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("strategy", "streams"), [(Strategy.POST_COPY, None), (Strategy.STOP_AND_COPY, 3)], ids=str
)
def test_strangers_at_all_that_listens_get_nothing_and_the_migration_does_not_notice(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, strategy: Strategy, streams: int | None
) -> None:
    address = hosts.redis("redis", memory_mb=30)
    with scanned(hosts) as found:
        with counting(hosts, address) as counted, attacked(hosts, monkeypatch) as besides:
            report = hosts.engine("redis", strategy=strategy, streams=streams)
        assert counted[0].intact, counted[0].summary()
        assert report.strategy == strategy
    got = {
        (where, port): [bytes.fromhex(answer) for answer in answers]
        for where, ports in {**found, **besides}.items()
        for port, answers in ports.items()
    }
    more = {place: said for place, answers in got.items() for said in answers if not is_nothing(said)}
    assert not more
    greeted = {(where, said[:8]) for (where, _), answers in got.items() for said in answers if said}
    assert {("destination", VERSION), ("destination", b"@RSYNCD:"), ("gateway", VERSION)} <= greeted
    pages = "read_pages" if strategy == Strategy.POST_COPY else "start_page_server"
    assert {("prepare", VERSION), ("prepare", b"@RSYNCD:"), ("decide", VERSION), (pages, VERSION)} <= greeted
    assert not found["source"], "nothing listens there"
