"""Connections that a program has not accepted: the kernel is asked about them, and the freeze waits for them."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest
from parties import Deciders, PlayedSource, Record

from sealift_agent.network.handshakes import Handshakes
from sealift_agent.network.hold import begins
from sealift_agent.source import quiet
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def deciders() -> Iterator[Deciders]:
    made = Deciders()
    yield made
    made.end()


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_kernel_tells_how_many_wait_at_which_port(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket(family))
        listener.bind((address, 0))
        listener.listen(8)
        port = listener.getsockname()[1]
        handshakes = Handshakes(f"/proc/{os.getpid()}/ns/net")
        held.callback(handshakes.close)
        assert port not in handshakes.unaccepted()
        for _ in range(3):
            held.enter_context(socket.create_connection((address, port)))
        assert handshakes.unaccepted()[port] == 3
        for left in (2, 1):
            listener.accept()[0].close()
            assert handshakes.unaccepted()[port] == left
        listener.accept()[0].close()
        assert port not in handshakes.unaccepted()


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_kernel_tells_which_closed_connections_still_have_data_to_send(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server((address, 0), family=family))
        handshakes = Handshakes(f"/proc/{os.getpid()}/ns/net")
        held.callback(handshakes.close)
        before = handshakes.still_sending()
        near = socket.create_connection(listener.getsockname()[:2])
        far = held.enter_context(listener.accept()[0])
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(bytes(1 << 20))
        assert handshakes.still_sending() == before, "the program has it open"
        near.close()
        assert handshakes.still_sending() == before + 1
        while far.recv(1 << 20):
            pass
        until = time.monotonic() + 5
        while handshakes.still_sending() > before:
            assert time.monotonic() < until


def packet(protocol: int, flags: int, *, options: int = 0, fragment: int = 0) -> bytes:
    length = 5 + options
    head = struct.pack(">BBHHHBBH8x", 0x40 | length, 0, 40, 1, fragment, 64, protocol, 0) + bytes(4 * options)
    return head + struct.pack(">HHIIBB", 1, 2, 3, 4, 0x50, flags)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (packet(6, 0x02), True),
        (packet(6, 0xC2), True),  # with ECN
        (packet(6, 0x02, options=10), True),
        (packet(6, 0x12), False),  # the answer to one
        (packet(6, 0x10), False),
        (packet(17, 0x02), False),
        (packet(6, 0x02, fragment=7), False),
        (packet(6, 0x02)[:30], False),
        (b"", False),
    ],
)
def test_only_a_syn_begins_a_connection(data: bytes, what: bool) -> None:
    assert begins(data) is what


def asked(source: PlayedSource) -> list[str]:
    questions: list[str] = []
    demand = source.gateway.demand

    def noted(question: str) -> object:
        questions.append(question)
        return demand(question)

    source.gateway.demand = noted  # type: ignore[method-assign,assignment]
    return questions


@pytest.fixture
def source(tmp_path: Path, deciders: Deciders, monkeypatch: pytest.MonkeyPatch) -> PlayedSource:
    monkeypatch.setattr(quiet, "HELD_S", 0.05)
    monkeypatch.setattr(quiet, "HALF_OPEN_S", 0.02)
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.3)
    monkeypatch.setattr(quiet, "BY_ITSELF_S", 0.1)
    source = PlayedSource(tmp_path, deciders.start(Record(outcome="committed")).port)
    source.destination_says({"phase": "received"}, {"phase": "restored"}, {"phase": "committed"})
    return source


def test_new_connections_are_held_before_all_else_is(source: PlayedSource) -> None:
    questions = asked(source)
    source.armed.go()
    assert questions[:2] == ["hold_new", "hold"]


def test_a_slow_program_is_waited_for_and_nothing_is_held_meanwhile(source: PlayedSource) -> None:
    questions = asked(source)
    source.handshakes.waiting = [{80: 2}] * 20
    source.armed.go()
    assert questions[:2] == ["hold_new", "hold"]


def test_new_connections_are_held_for_a_program_whose_queue_fills_again_and_again(
    source: PlayedSource,
) -> None:
    questions = asked(source)
    source.handshakes.waiting = [{80: 2}] * 60  # longer than it is waited for without holding any
    source.armed.go()
    frozen = questions.index("hold")
    assert questions[frozen - 1] == "hold_new"
    assert set(questions[:frozen]) <= {"hold_new", "pass"}
    assert not source.handshakes.waiting


def test_a_half_open_connection_may_be_completed(source: PlayedSource) -> None:
    source.handshakes.half_open = [True, True, False]
    source.armed.go()
    assert source.handshakes.half_open == []


def test_those_that_never_confirm_stop_nobody(source: PlayedSource) -> None:
    questions = asked(source)
    source.handshakes.half_open = [True] * 100_000
    source.armed.go()
    assert "pass" not in questions


def test_what_the_program_has_closed_may_send_the_rest_first(source: PlayedSource) -> None:
    questions = asked(source)
    source.handshakes.sending = [2, 1, 0, 1, 1, 0]
    source.armed.go()
    assert source.handshakes.sending == []
    assert questions[:2] == ["hold_new", "hold"]
    assert source.armed._quiet.cut_off == 0


def test_a_peer_that_does_not_read_stops_nobody_and_is_counted(
    source: PlayedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "CLOSED_S", 0.01)
    questions = asked(source)
    source.handshakes.sending = [2] * 100_000
    source.armed.go()
    assert "pass" not in questions
    assert source.armed._quiet.cut_off == 2


def test_a_connection_that_comes_into_the_freeze_is_let_in_and_accepted_first(source: PlayedSource) -> None:
    questions = asked(source)
    source.handshakes.waiting = [{}, {}, {80: 1}]
    source.armed.go()
    assert source.done[:3] == ["freeze", "go on", "freeze"]
    assert questions[:5] == ["hold_new", "hold", "pass", "hold_new", "hold"]


@pytest.mark.parametrize("is_group", [False, True])
def test_a_queue_that_is_never_empty_is_named_and_nothing_is_frozen(
    tmp_path: Path, deciders: Deciders, monkeypatch: pytest.MonkeyPatch, is_group: bool
) -> None:
    monkeypatch.setattr(quiet, "PATIENCE_S", 3600 if is_group else 0.05)
    monkeypatch.setattr(quiet, "GROUP_PATIENCE_S", 0.05)
    source = PlayedSource(tmp_path, deciders.start(Record()).port, group=is_group)
    source.handshakes.waiting = [{80: 25}] * 1_000_000
    began = time.monotonic()
    with pytest.raises(AgentError, match=r"25 at port 80.*when the program accepts faster"):
        source.armed.go()
    assert time.monotonic() - began < 5
    assert "freeze" not in source.done
