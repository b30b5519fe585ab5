"""The gateway's record: durable before it is carried out, and decided once."""

from __future__ import annotations

import base64
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from sealift_agent.network import allowed
from sealift_agent.protocol import Move, Route
from sealift_agent.routes import Routes
from sealift_agent.wire import WAITING, AgentError

if TYPE_CHECKING:
    from pathlib import Path

WG = """#!/usr/bin/env python3
import json, os, sys
file = os.environ["FAKE_WG"]
held = json.load(open(file))
if sys.argv[1:2] == ["show"]:
    for peer, ips in held.items():
        print(peer, *(ips or ["(none)"]), sep="\\t")
    sys.exit()
if os.environ.get("FAKE_WG_FAILS"):
    sys.exit("out of order")
words = sys.argv[3:]
while words:
    _, peer, verb, *words = words
    if verb == "remove":
        del held[peer]
        continue
    if verb == "endpoint":
        _, _, *words = words
    ips, *words = words
    ips = [ip for ip in ips.split(",") if ip]
    for other in held:  # an allowed IP has one owner: WireGuard takes it from who had it
        held[other] = [ip for ip in held[other] if ip not in ips]
    held[peer] = ips
json.dump(held, open(file, "w"))
"""
NEW = base64.b64encode(b"n" * 32).decode()
TUNNELS = {"a=": ["10.78.0.10/32"], "b=": ["10.78.0.20/32"]}


class FakeWireGuard:
    """A `wg` in PATH whose table is a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def table(self) -> dict[str, list[str]]:
        held: dict[str, list[str]] = json.loads(self.file.read_text())
        return held


@pytest.fixture
def wireguard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWireGuard:
    program = tmp_path / "bin" / "wg"
    program.parent.mkdir()
    program.write_text(WG)
    program.chmod(0o755)
    table = tmp_path / "table"
    table.write_text(json.dumps(TUNNELS))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_WG", str(table))
    network = tmp_path / "network.env"
    network.write_text("ROLE=gateway\nWORKLOADS=10.77.0.0/16\n")
    monkeypatch.setattr(allowed, "NETWORK", network)
    return FakeWireGuard(table)


@pytest.fixture
def routes(tmp_path: Path, wireguard: FakeWireGuard) -> Routes:
    made = Routes(tmp_path / "state")
    made.assign("10.77.0.9", "a=", "here")
    return made


def test_an_assigned_address_is_the_peer_s_besides_its_tunnel_address(
    routes: Routes, wireguard: FakeWireGuard
) -> None:
    assert wireguard.table() == {"a=": ["10.78.0.10/32", "10.77.0.9/32"], "b=": ["10.78.0.20/32"]}


def test_a_switch_moves_the_address_and_nothing_else(routes: Routes, wireguard: FakeWireGuard) -> None:
    routes.assign("10.77.0.8", "a=", "here")
    assert routes.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == "committed"
    assert wireguard.table() == {
        "a=": ["10.78.0.10/32", "10.77.0.8/32"],
        "b=": ["10.78.0.20/32", "10.77.0.9/32"],
    }


def test_whoever_asks_first_decides(routes: Routes) -> None:
    assert routes.call_off("m") == "rolled back"
    assert routes.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == "rolled back"
    assert routes.show().routes["10.77.0.9"].peer == "a="
    assert routes.switch(Move("n", "10.77.0.9", "a=", "b=", "there")) == "committed"
    assert routes.call_off("n") == "committed"


def test_asking_again_gets_the_same_answer(routes: Routes) -> None:
    for _ in range(2):
        assert routes.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == "committed"


def test_many_who_ask_at_once_get_one_answer(routes: Routes) -> None:
    answers: list[str] = []

    def ask(number: int) -> None:
        own = Routes(routes.state)
        switch = number % 2
        answers.append(
            own.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) if switch else own.call_off("m")
        )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1


@pytest.fixture
def group(routes: Routes) -> Routes:
    routes.assign("10.77.0.8", "a=", "here")
    routes.bind(["m", "n"])
    return routes


def test_a_group_commits_when_the_last_of_it_has_asked(group: Routes, wireguard: FakeWireGuard) -> None:
    assert group.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == WAITING
    assert group.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == WAITING
    assert wireguard.table()["a="] == ["10.78.0.10/32", "10.77.0.9/32", "10.77.0.8/32"]
    again = Routes(group.state)  # the gateway's agent died meanwhile
    assert again.switch(Move("n", "10.77.0.8", "a=", "b=", "there")) == "committed"
    assert again.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == "committed"
    assert wireguard.table() == {
        "a=": ["10.78.0.10/32"],
        "b=": ["10.78.0.20/32", "10.77.0.9/32", "10.77.0.8/32"],
    }
    assert (again.show().groups, again.show().asked) == ({}, {})


@pytest.mark.parametrize("asked", [[], ["m"], ["n"]])
def test_one_of_a_group_calls_off_all_of_it(group: Routes, asked: list[str]) -> None:
    addresses = {"m": "10.77.0.9", "n": "10.77.0.8"}
    for migration in asked:
        group.switch(Move(migration, addresses[migration], "a=", "b=", "there"))
    assert group.call_off("n") == "rolled back"
    for migration, address in addresses.items():
        assert group.switch(Move(migration, address, "a=", "b=", "there")) == "rolled back"
        assert group.show().routes[address].peer == "a="
    group.bind(["m", "n"])  # by an agent that took over
    assert group.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == "rolled back"


def test_an_address_that_is_no_longer_the_source_s_is_not_moved(routes: Routes) -> None:
    routes.assign("10.77.0.9", "b=", "there")
    with pytest.raises(AgentError, match="does not belong to the source any more"):
        routes.switch(Move("m", "10.77.0.9", "a=", "b=", "there"))
    assert "m" not in routes.show().decisions


def test_a_gateway_that_dies_between_record_and_deed_does_the_deed_when_it_is_back(
    routes: Routes, wireguard: FakeWireGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WG_FAILS", "yes")
    assert routes.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == "committed"
    assert "`wg set` failed" in routes.behind["10.77.0.9"]
    monkeypatch.delenv("FAKE_WG_FAILS")
    assert "10.77.0.9/32" in wireguard.table()["a="]
    again = Routes(routes.state)
    assert again.call_off("m") == "committed"
    again.restore()
    assert wireguard.table() == {"a=": ["10.78.0.10/32"], "b=": ["10.78.0.20/32", "10.77.0.9/32"]}


def test_a_gateway_that_was_restarted_gives_wireguard_what_its_record_says(
    routes: Routes, wireguard: FakeWireGuard
) -> None:
    wireguard.file.write_text(json.dumps(TUNNELS))
    Routes(routes.state).restore()
    assert "10.77.0.9/32" in wireguard.table()["a="]


def test_a_half_written_record_does_not_count(routes: Routes) -> None:
    (routes.state / "routes.new").write_text('{"routes": {')
    assert Routes(routes.state).show().routes["10.77.0.9"].host == "here"


def test_a_released_address_is_nobody_s(routes: Routes, wireguard: FakeWireGuard) -> None:
    routes.release("10.77.0.9")
    assert wireguard.table() == TUNNELS
    routes.release("10.77.0.9")


@pytest.mark.parametrize("address", ["10.77.0", "nonsense", "10.77.0.9/32", ""])
def test_an_address_that_is_none_is_refused(routes: Routes, address: str) -> None:
    with pytest.raises(AgentError, match="is not an IPv4 address"):
        routes.assign(address, "a=", "here")


def test_a_peer_that_wireguard_does_not_know_is_refused(routes: Routes) -> None:
    with pytest.raises(AgentError, match="WireGuard has no peer c="):
        routes.assign("10.77.0.7", "c=", "nowhere")
    assert "10.77.0.7" not in routes.show().routes, "what was refused is not on record"


def on_record(routes: Routes, address: str, peer: str) -> None:
    """A route that an older version left behind when it refused it."""
    record = json.loads(routes.file.read_text())
    record["routes"][address] = {"peer": peer, "host": "nowhere"}
    routes.file.write_text(json.dumps(record))


def test_a_route_whose_peer_wireguard_does_not_have_keeps_no_other_from_its_own(
    routes: Routes, wireguard: FakeWireGuard
) -> None:
    on_record(routes, "10.77.0.7", "c=")
    assert routes.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == "committed"
    assert wireguard.table() == {"a=": ["10.78.0.10/32"], "b=": ["10.78.0.20/32", "10.77.0.9/32"]}
    assert routes.behind == {"10.77.0.7": "WireGuard has no peer c="}
    assert routes.call_off("m") == "committed"


@pytest.mark.parametrize("peer", ["c=", "", "A" * 44, "nonsense"])
def test_a_key_that_is_none_is_refused_before_it_is_on_record(
    wireguard: FakeWireGuard, tmp_path: Path, peer: str
) -> None:
    routes = Routes(tmp_path)
    with pytest.raises(AgentError, match="is no WireGuard key"):
        routes.adopt("destination", peer, "10.78.0.20", "192.0.2.1:51820")
    assert routes.show().peers == {}


def test_nothing_is_put_on_record_for_a_wireguard_that_does_not_answer(
    routes: Routes, wireguard: FakeWireGuard
) -> None:
    wireguard.file.write_text("not its table")
    for change in (
        lambda: routes.assign("10.77.0.7", "b=", "there"),
        lambda: routes.release("10.77.0.9"),
        lambda: routes.adopt("there", NEW, "10.78.0.20", "192.0.2.1:51820"),
    ):
        before = routes.file.read_bytes()
        with pytest.raises(AgentError, match="`wg show` failed"):
            change()
        assert routes.file.read_bytes() == before


def test_a_key_that_wireguard_does_not_take_keeps_no_other_host_from_its_own(
    routes: Routes, wireguard: FakeWireGuard
) -> None:
    record = json.loads(routes.file.read_text())
    good = {"peer": NEW, "tunnel": "10.78.0.20", "endpoint": "192.0.2.1:51820"}
    record["peers"] = {"bad": {"peer": "a=", "endpoint": "192.0.2.1:51820"}, "there": good}
    routes.file.write_text(json.dumps(record))
    assert set(routes.restore()) == {"bad"}
    assert wireguard.table()[NEW] == ["10.78.0.20/32"]


def test_an_address_that_was_given_away_while_a_group_waited_is_not_moved(group: Routes) -> None:
    assert group.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == WAITING
    group.assign("10.77.0.9", "b=", "elsewhere")
    with pytest.raises(AgentError, match=r"10\.77\.0\.9 does not belong to the source any more"):
        group.switch(Move("n", "10.77.0.8", "a=", "b=", "there"))
    assert group.call_off("n") == group.call_off("m") == "rolled back"


def test_a_new_key_of_a_host_takes_the_place_of_the_one_before(
    wireguard: FakeWireGuard, tmp_path: Path
) -> None:
    routes = Routes(tmp_path)
    routes.assign("10.77.0.5", "b=", "destination")
    routes.assign("10.77.0.6", "a=", "source")
    for _ in range(2):  # doing it again changes nothing
        routes.adopt("destination", NEW, "10.78.0.20", "192.0.2.1:51820")
        assert wireguard.table() == {
            "a=": ["10.78.0.10/32", "10.77.0.6/32"],
            NEW: ["10.78.0.20/32", "10.77.0.5/32"],
        }
    assert routes.show().routes["10.77.0.5"] == Route(peer=NEW, host="destination")


def test_a_new_key_is_on_record_before_it_is_carried_out_and_comes_back_with_the_gateway(
    wireguard: FakeWireGuard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = Routes(tmp_path)
    routes.assign("10.77.0.5", "b=", "destination")
    with monkeypatch.context() as patch:
        patch.setenv("FAKE_WG_FAILS", "1")
        with pytest.raises(AgentError):
            routes.adopt("destination", NEW, "10.78.0.20", "192.0.2.1:51820")
    routes.restore()
    assert wireguard.table() == {"a=": ["10.78.0.10/32"], NEW: ["10.78.0.20/32", "10.77.0.5/32"]}
