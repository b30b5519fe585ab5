"""When the destination gives its copy up: before the commit for any failure, after it for none."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from parties import Deciders, PlayedDestination, Record, impostor

from sealift_agent import volume_marks
from sealift_agent.destination import Destination, decision
from sealift_agent.protocol import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decision, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(decision, "DOUBT_S", 0.1)
    monkeypatch.setattr(volume_marks, "MARKS", tmp_path / "marks")


@pytest.fixture
def deciders() -> Iterator[Deciders]:
    made = Deciders()
    yield made
    made.end()


def test_a_copy_that_wins_is_kept_and_reached(tmp_path: Path, deciders: Deciders) -> None:
    record = Record()
    there = PlayedDestination(tmp_path, deciders.start(record).port)
    there.send_all()
    said = list(there.said())
    assert [message["phase"] for message in said] == ["received", "restored", "committed"]
    assert said[-1]["facts"] == {"held_packets": 3}
    there.armed.join()
    assert record.asked == ["switch"]
    assert there.done == [
        "all pages",
        "restore",
        "make sure",
        "watch memory",
        "attach",
        "complete memory",
    ]
    assert there.copy.kept
    assert there.controller.events == ["committed"]


@pytest.mark.parametrize(
    ("failing", "step"), [("all pages", "transfer"), ("restore", "restore"), ("make sure", "restore")]
)
def test_what_fails_before_the_switch_gives_the_copy_up_and_the_source_hears_why(
    tmp_path: Path, deciders: Deciders, failing: str, step: str
) -> None:
    record = Record()
    there = PlayedDestination(tmp_path, deciders.start(record).port)
    there.restore.failures.add(failing)
    there.send_all()
    *_, last = there.said()
    assert last == {"failed": f"{failing} has failed", "step": step}
    there.armed.join()
    assert record.asked == [], "nobody has asked for the address"
    assert there.done[-1] == "given up"
    assert not there.copy.kept


@pytest.mark.parametrize(
    ("carried", "why"),
    [
        (b"[]", "where a message was expected"),
        (b'{"options": [], "datagrams": [], "names": [[7, 3, "/s"]]}', "first process has failed"),
    ],
)
def test_what_is_carried_of_sockets_is_put_back_before_the_switch_or_the_copy_is_given_up(
    tmp_path: Path, deciders: Deciders, carried: bytes, why: str
) -> None:
    record = Record()
    there = PlayedDestination(tmp_path, deciders.start(record).port)
    there.restore.failures.add("first process")
    there.send_all(sockets_json=carried)
    *_, last = there.said()
    assert last["step"] == "restore"
    assert why in last["failed"]
    there.armed.join()
    assert record.asked == []
    assert there.done[-1] == "given up"


def test_a_source_that_is_lost_before_everything_came_has_the_copy_given_up(
    tmp_path: Path, deciders: Deciders
) -> None:
    record = Record()
    there = PlayedDestination(tmp_path, deciders.start(record).port)
    there.source.send(images=[{"name": "core-1.img", "size": 4}], links=[], files=False)
    there.source.close()
    there.armed.join()
    assert record.asked == []
    assert there.done == ["given up"]


@pytest.mark.parametrize("failing", ["watch memory", "attach", "complete memory"])
def test_what_fails_after_the_commit_never_gives_the_copy_up(
    tmp_path: Path, deciders: Deciders, failing: str
) -> None:
    there = PlayedDestination(tmp_path, deciders.start(Record()).port)
    there.restore.failures.add(failing)
    there.port.failures.add(failing)
    there.send_all()
    there.armed.join()
    there.copy.give_up()
    there.armed.end(called_off=False)
    there.copy.give_up()
    assert there.copy.kept
    assert "given up" not in there.done


def test_a_source_that_is_lost_after_the_decision_changes_nothing_of_it(
    tmp_path: Path, deciders: Deciders
) -> None:
    there = PlayedDestination(tmp_path, deciders.start(Record()).port)
    there.send_all()
    there.source.socket.shutdown(2)  # whatever is said to it is lost
    there.armed.join()
    there.copy.give_up()
    assert there.copy.kept == ("attach" in there.done)
    assert ("given up" in there.done) is not there.copy.kept


def test_a_recorded_no_gives_the_copy_up(tmp_path: Path, deciders: Deciders) -> None:
    there = PlayedDestination(tmp_path, deciders.start(Record(outcome="rolled back")).port)
    there.send_all()
    *_, last = there.said()
    assert last == {"failed": "the gateway had it rolled back", "step": "network switch"}
    there.armed.join()
    assert there.done[-1] == "given up"
    assert "attach" not in there.done


@pytest.mark.parametrize("outcome", ["committed", None])
def test_an_error_of_the_gateway_is_no_outcome_what_is_on_record_is(
    tmp_path: Path, deciders: Deciders, outcome: str | None
) -> None:
    record = Record(outcome=outcome, refuses="Input/output error")
    there = PlayedDestination(tmp_path, deciders.start(record).port)
    there.send_all()
    *_, last = there.said()
    there.armed.join()
    assert record.asked == ["switch", "call_off"]
    assert there.copy.kept is (outcome == "committed")
    assert ("given up" in there.done) is not there.copy.kept
    assert "failed" not in last or "Input/output error" in last["failed"]


@pytest.mark.parametrize("outcome", [Outcome.COMMITTED, Outcome.ROLLED_BACK])
def test_a_destination_that_hears_nothing_of_the_gateway_neither_wins_nor_gives_up_until_it_is_told(
    tmp_path: Path, outcome: Outcome
) -> None:
    there = PlayedDestination(tmp_path, impostor(lambda _: b"garbage"))
    there.send_all()
    time.sleep(0.4)
    there.armed.decided(Outcome.UNDECIDED)
    assert not there.copy.kept
    assert "given up" not in there.done
    assert "undecided" in there.controller.events
    there.armed.decided(outcome)
    there.armed.join()
    assert there.copy.kept is (outcome is Outcome.COMMITTED)
    assert ("given up" in there.done) is not there.copy.kept


@pytest.mark.parametrize("outcome", [None, "rolled back"])
def test_without_a_controller_it_is_decided_between_the_hosts_and_then_put_away(
    tmp_path: Path, deciders: Deciders, outcome: str | None
) -> None:
    there = PlayedDestination(tmp_path, deciders.start(Record(outcome=outcome)).port)
    destination = Destination(there.controller)
    destination.copy, destination._armed = there.copy, there.armed
    leaving = threading.Thread(target=destination.gone, daemon=True)
    leaving.start()
    time.sleep(0.1)
    assert leaving.is_alive(), "the source may still send"
    there.send_all()
    list(there.said())
    leaving.join(10)
    assert not leaving.is_alive()
    assert there.copy.kept is (outcome is None)
    assert there.done[-2:] == (["stay", "policy"] if there.copy.kept else ["make sure", "given up"])


def test_a_destination_that_is_closed_twice_keeps_what_has_won(tmp_path: Path, deciders: Deciders) -> None:
    there = PlayedDestination(tmp_path, deciders.start(Record()).port)
    destination = Destination(there.controller)
    destination.copy, destination._armed = there.copy, there.armed
    there.send_all()
    list(there.said())
    destination.close()
    destination.gone()
    assert "given up" not in there.done
    assert there.done.count("policy") == 1
