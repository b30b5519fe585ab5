"""Only who has the migration's key can ask the gateway, or say what was decided. Nobody else's word is an answer."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from parties import KEY, OTHER, Deciders, PlayedSource, Record, Told, asked_at, connected, impostor

from sealift_agent import authenticated, gateway, volume_marks
from sealift_agent.destination import decision
from sealift_agent.protocol import Outcome
from sealift_agent.source import cutover
from sealift_agent.wire import AgentError, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def decider() -> Iterator[Callable[..., gateway.Decider]]:
    made = Deciders()
    yield made.start
    made.end()


def at(decider: gateway.Decider) -> Link:
    return Link.connect("127.0.0.1", decider.port, "t")


def test_who_has_the_key_is_answered_and_can_tell_that_it_was_the_gateway(decider: Any) -> None:
    record = Record()
    link = at(decider(record))
    assert authenticated.ask(link, KEY, "m", "switch", 5) == {"outcome": "committed"}
    assert authenticated.ask(link, KEY, "m", "call_off", 5) == {"outcome": "committed"}
    assert record.asked == ["switch", "call_off"]


@pytest.mark.parametrize(("key", "migration"), [(OTHER, "m"), (KEY, "another")])
def test_who_has_another_key_decides_nothing(decider: Any, key: str, migration: str) -> None:
    record = Record()
    link = at(decider(record))
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
    link = at(decider(record))
    link.socket.sendall(message + b"\n")
    with pytest.raises(AgentError):
        link.receive(5)
    assert record.asked == []


def test_what_is_no_question_is_answered_with_an_error(decider: Any) -> None:
    link = at(decider(Record()))
    assert "error" in authenticated.ask(link, KEY, "m", "__init__", 5)


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
    link = at(decider(Record()))
    authenticated.put(link, KEY, "m", "call_off")
    with pytest.raises(authenticated.Unproved):
        authenticated.ask(link, KEY, "m", "call_off", 5)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decision, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(decision, "DOUBT_S", 0.1)
    monkeypatch.setattr(cutover, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(cutover, "HAND_OVER_S", 0.3)
    monkeypatch.setattr(volume_marks, "MARKS", tmp_path / "marks")


@pytest.fixture
def asking(quick: None, tmp_path: Path) -> Callable[[int], decision.Decision]:
    """A destination that has restored the container and is about to ask for the address, at this port."""

    def made(port: int) -> decision.Decision:
        here, there = connected()
        one = decision.Decision(asked_at(port, timeout_s=30), Told(), here, tmp_path)
        one.peer_of_test = there  # type: ignore[attr-defined] - kept open
        return one

    return made


@pytest.mark.parametrize("said", ANSWERS)
def test_a_destination_asks_on_until_the_gateway_itself_has_answered(
    asking: Any, decider: Any, said: str
) -> None:
    one = asking(impostor(ANSWERS[said]))
    outcomes: list[bool] = []
    asks = threading.Thread(target=lambda: outcomes.append(one.switch()), daemon=True)
    asks.start()
    time.sleep(0.3)
    assert outcomes == [], "neither yes nor no"
    one._gateway._decider = replace(
        one._gateway._decider, port=decider(Record()).port
    )  # the way to the gateway is free again
    asks.join(10)
    assert outcomes == [True]


def test_an_error_before_the_decision_is_no_answer_and_the_destination_has_it_called_off(
    asking: Any, decider: Any
) -> None:
    record = Record(refuses="10.77.0.9 does not belong to the source any more")
    one = asking(decider(record).port)
    assert one.switch() is False
    assert record.asked == ["switch", "call_off"]
    assert record.outcome == "rolled back", "the destination gives up on nothing else"
    assert "does not belong" in one.refused


def test_an_error_after_the_decision_gives_up_nothing(asking: Any, decider: Any) -> None:
    record = Record(outcome="committed", refuses="Input/output error")
    assert asking(decider(record).port).switch() is True


def test_a_destination_that_is_told_by_recovery_asks_no_more(asking: Any, tmp_path: Path) -> None:
    one = asking(impostor(ANSWERS["garbage"]))
    (tmp_path / "outcome").write_text("committed")
    assert one.switch() is True


@pytest.fixture
def frozen(quick: None, tmp_path: Path) -> Callable[[int], PlayedSource]:
    """A source that has sent everything and has heard from the destination that it has the container."""

    def made(port: int) -> PlayedSource:
        one = PlayedSource(tmp_path, port)
        one.destination_says(*({"phase": phase} for phase in ("received", "restored", "committed")))
        return one

    return made


def test_a_source_believes_the_gateway_and_not_the_destination(frozen: Any, decider: Any) -> None:
    one = frozen(decider(Record()).port)  # nobody has asked for the address: the destination's word is false
    with pytest.raises(AgentError, match="the gateway denies it"):
        one.armed.go()
    assert one.runs
    assert "committed" not in one.controller.events
    with pytest.raises(AgentError, match="has not said"):
        one.armed.remove_container()


def test_a_source_whose_gateway_says_so_too_has_committed(frozen: Any, decider: Any) -> None:
    one = frozen(decider(Record(outcome="committed")).port)
    assert one.armed.go() == "committed"
    assert one.controller.events[-1] == "committed"
    one.armed.remove_container()
    assert one.done[-1] == "remove"


@pytest.mark.parametrize("said", ANSWERS)
def test_a_source_that_hears_nothing_of_the_gateway_stays_frozen_and_says_so(
    frozen: Any, decider: Any, said: str
) -> None:
    one = frozen(decider(Record()).port)
    one.lose_gateway(impostor(ANSWERS[said]))
    assert one.armed.go() == "undecided"
    assert "go on" not in one.done
    with pytest.raises(AgentError, match="has not said"):
        one.armed.remove_container()
    one.armed.decided(Outcome.ROLLED_BACK)  # the controller has a way of its own to the gateway
    assert "go on" in one.done
