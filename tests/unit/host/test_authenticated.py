"""Only who has the migration's key can ask the gateway, or say what was decided. Nobody else's word is an answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent import authenticated, destination, gateway, source
from sealift_agent.admission import Admission
from sealift_agent.protocol import Decider, Move
from sealift_agent.wire import AgentError, Controller, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY, OTHER = "11" * 32, "22" * 32
MOVE = Move("m", "10.77.0.9", "a=", "b=", "there")


class Record:
    """The gateway's record, as far as a decider needs it; `refuses` is what it says before anything is decided."""

    def __init__(self, outcome: str | None = None, refuses: str | None = None) -> None:
        self.outcome, self.refuses = outcome, refuses
        self.behind: dict[str, str] = {}
        self.asked: list[str] = []

    def switch(self, _: Move) -> str:
        self.asked.append("switch")
        if self.refuses:
            raise AgentError(self.refuses)
        self.outcome = self.outcome or "committed"
        return self.outcome

    def call_off(self, _: str) -> str:
        self.asked.append("call_off")
        self.outcome = self.outcome or "rolled back"
        return self.outcome


@pytest.fixture
def decider() -> Iterator[Callable[..., gateway.Decider]]:
    made: list[gateway.Decider] = []

    def start(record: Record, key: str = KEY, port: int = 0) -> gateway.Decider:
        made.append(gateway.Decider(record, "127.0.0.1", "t", key, MOVE, port))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.end()


def connected(decider: gateway.Decider) -> Link:
    return Link.connect("127.0.0.1", decider.port, "t")


def test_who_has_the_key_is_answered_and_can_tell_that_it_was_the_gateway(decider: Any) -> None:
    record = Record()
    link = connected(decider(record))
    assert authenticated.ask(link, KEY, "m", "switch", 5) == {"outcome": "committed"}
    assert authenticated.ask(link, KEY, "m", "call_off", 5) == {"outcome": "committed"}
    assert record.asked == ["switch", "call_off"]


@pytest.mark.parametrize(("key", "migration"), [(OTHER, "m"), (KEY, "another")])
def test_who_has_another_key_decides_nothing(decider: Any, key: str, migration: str) -> None:
    record = Record()
    link = connected(decider(record))
    with pytest.raises(AgentError):
        authenticated.ask(link, key, migration, "call_off", 5)
    assert record.asked == []


@pytest.mark.parametrize(
    "message",
    [
        b'{"ask": "call_off"}',
        b"[]",
        b"nonsense",
        b'{"ask": "call_off", "nonce": 1, "proof": []}',
        b"[" * 9999,
    ],
)
def test_a_question_without_its_proof_decides_nothing(decider: Any, message: bytes) -> None:
    record = Record()
    link = connected(decider(record))
    link.socket.sendall(message + b"\n")
    with pytest.raises(AgentError):
        link.receive(5)
    assert record.asked == []


def test_what_is_no_question_is_answered_with_an_error(decider: Any) -> None:
    link = connected(decider(Record()))
    assert "error" in authenticated.ask(link, KEY, "m", "__init__", 5)


def impostor(answers: Callable[[dict[str, Any]], bytes]) -> int:
    """Somebody at the gateway's address, who knows the token but not the key. Returns his port."""
    admission = Admission("127.0.0.1", "t", slots=None)

    def serve() -> None:
        while True:
            try:
                link = Link(admission.take())
                link.socket.sendall(answers(link.receive(5)) + b"\n")
            except (OSError, AgentError):
                return

    threading.Thread(target=serve, daemon=True).start()
    return admission.port


def forged(outcome: str) -> Callable[[dict[str, Any]], bytes]:
    """An answer with everything but a proof by the key."""

    def answer(question: dict[str, Any]) -> bytes:
        text = json.dumps({"outcome": outcome})
        proof = authenticated._proof(OTHER, "answer", "m", question["ask"], question["nonce"], text)
        return json.dumps({"answer": text, "proof": proof, "outcome": outcome}).encode()

    return answer


ANSWERS = {
    "yes": forged("committed"),
    "no": forged("rolled back"),
    "its own question": lambda question: json.dumps({"answer": "{}", "proof": question["proof"]}).encode(),
    "the old yes": lambda _: b'{"outcome": "committed"}',
    "the old no": lambda _: b'{"outcome": "rolled back"}',
    "an old error": lambda _: b'{"error": "no"}',
    "a list": lambda _: b"[]",
    "garbage": lambda _: b"\x00" * 50,
    "depth": lambda _: b"[" * 9999,
}


@pytest.mark.parametrize("said", ANSWERS)
def test_what_an_impostor_says_is_no_answer(said: str) -> None:
    link = Link.connect("127.0.0.1", impostor(ANSWERS[said]), "t")
    with pytest.raises(AgentError):
        authenticated.ask(link, KEY, "m", "switch", 5)


def test_an_answer_to_an_earlier_question_is_none_to_this_one(decider: Any) -> None:
    link = connected(decider(Record()))
    authenticated.put(link, KEY, "m", "call_off")
    with pytest.raises(authenticated.Unproved):
        authenticated.ask(link, KEY, "m", "call_off", 5)


class Silent(Controller):
    """A controller that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def event(self, name: str, **_: Any) -> None:
        self.events.append(name)


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> destination.Destination:
    """A destination that has restored the container and is about to ask for the address."""
    monkeypatch.setattr(destination, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(destination, "DOUBT_S", 0.1)
    made = destination.Destination(Silent())
    made.migration, made.directory = "m", tmp_path
    here, made_there = socket.socketpair()
    made.link = Link.__new__(Link)
    made.link.socket = here
    made.peer_of_test = made_there  # type: ignore[attr-defined] - kept open
    return made


def at(asking: Any, port: int) -> None:
    name = "_gateway" if isinstance(asking, source.Source) else "gateway"
    setattr(asking, name, Decider("127.0.0.1", port, "t", KEY, group=False))
    asking.decider = Link.connect("127.0.0.1", port, "t")


@pytest.mark.parametrize("said", ANSWERS)
def test_a_destination_asks_on_until_the_gateway_itself_has_answered(
    asking: Any, decider: Any, said: str
) -> None:
    at(asking, impostor(ANSWERS[said]))
    outcomes: list[bool] = []
    asks = threading.Thread(target=lambda: outcomes.append(asking._switch()), daemon=True)
    asks.start()
    time.sleep(0.3)
    assert outcomes == [], "neither yes nor no"
    asking.gateway = replace(
        asking.gateway, port=decider(Record()).port
    )  # the way to the gateway is free again
    asks.join(10)
    assert outcomes == [True]


def test_an_error_before_the_decision_is_no_answer_and_the_destination_has_it_called_off(
    asking: Any, decider: Any
) -> None:
    record = Record(refuses="10.77.0.9 does not belong to the source any more")
    at(asking, decider(record).port)
    assert asking._switch() is False
    assert record.asked == ["switch", "call_off"]
    assert record.outcome == "rolled back", "the destination gives up on nothing else"
    assert "does not belong" in asking.refused


def test_an_error_after_the_decision_gives_up_nothing(asking: Any, decider: Any) -> None:
    record = Record(outcome="committed", refuses="Input/output error")
    at(asking, decider(record).port)
    assert asking._switch() is True


def test_a_destination_that_is_told_by_recovery_asks_no_more(asking: Any, tmp_path: Path) -> None:
    at(asking, impostor(ANSWERS["garbage"]))
    (tmp_path / "outcome").write_text("committed")
    assert asking._switch() is True


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A source that has sent everything and has heard from the destination that it has the container."""
    monkeypatch.setattr(source, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(source, "HAND_OVER_S", 0.3)
    made: Any = source.Source(Silent())
    made.migration, made.container, made.directory = "m", "c", tmp_path
    made.everything_sent = True
    made._dump_and_send = lambda: None
    said = [{"phase": phase} for phase in ("received", "restored", "committed")]
    made._hear = lambda: said.pop(0)
    made.ran_on = []
    made._go_on = lambda: made.ran_on.append(True)
    made.told = []
    made.controller.tell = lambda **message: made.told.append(message)
    return made


def test_a_source_believes_the_gateway_and_not_the_destination(frozen: Any, decider: Any) -> None:
    at(frozen, decider(Record()).port)  # nobody has asked for the address: the destination's word is false
    with pytest.raises(AgentError, match="the gateway denies it"):
        frozen.go()
    assert frozen.ran_on
    assert frozen.told == []
    with pytest.raises(AgentError, match="has not said"):
        frozen.remove_container()


def test_a_source_whose_gateway_says_so_too_has_committed(
    frozen: Any, decider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(source, "remove", removed.append)
    at(frozen, decider(Record(outcome="committed")).port)
    assert frozen.go() == "committed"
    assert frozen.told[0]["event"] == "committed"
    frozen.remove_container()
    assert removed == ["c"]


@pytest.mark.parametrize("said", ANSWERS)
def test_a_source_that_hears_nothing_of_the_gateway_stays_frozen_and_says_so(frozen: Any, said: str) -> None:
    at(frozen, impostor(ANSWERS[said]))
    assert frozen.go() == "undecided"
    assert not frozen.ran_on
    with pytest.raises(AgentError, match="has not said"):
        frozen.remove_container()
    frozen.decided("rolled back")  # the controller has a way of its own to the gateway
    assert frozen.ran_on
