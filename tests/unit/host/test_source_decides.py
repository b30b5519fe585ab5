"""When the source may let its container run again: the states of its cutover, each way out of each."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from parties import Deciders, PlayedSource, Record, impostor

from sealift_agent import unread, volume_marks
from sealift_agent.held import Held
from sealift_agent.protocol import Outcome
from sealift_agent.source import cutover, quiet
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARRIVED: list[dict[str, Any]] = [
    {"phase": "received", "facts": {"page_bytes": 4}},
    {"phase": "restored", "facts": {}},
    {"phase": "committed", "facts": {"held_packets": 3}},
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cutover, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(cutover, "HAND_OVER_S", 0.3)
    monkeypatch.setattr(volume_marks, "MARKS", tmp_path / "marks")


@pytest.fixture
def deciders() -> Iterator[Deciders]:
    made = Deciders()
    yield made
    made.end()


@pytest.fixture
def silent() -> int:
    """The port of a gateway whose word is none."""
    return impostor(lambda _: b"garbage")


def test_a_cutover_that_comes_through_ends_by_the_gateway_s_word(tmp_path: Path, deciders: Deciders) -> None:
    record = Record(outcome="committed")
    source = PlayedSource(tmp_path, deciders.start(record).port)
    source.destination_says(*ARRIVED)
    assert source.armed.go() is Outcome.COMMITTED
    assert record.asked == ["call_off"], "the destination's word is not enough"
    assert source.controller.events == [
        "go",
        "frozen",
        "dumped",
        "sent",
        "received",
        "restored",
        "committed",
    ]
    assert source.done == ["freeze", "dump", "files", "dumped"], "frozen, and files and memory at once"
    assert source.destination.receive(5) == {
        "images": [{"name": "core-1.img", "size": 4}],
        "links": [],
        "files": False,
    }


@pytest.mark.parametrize("failing", ["freeze", "files", "dumped"])
def test_what_fails_before_everything_is_sent_is_rolled_back_at_once_without_the_gateway(
    tmp_path: Path, deciders: Deciders, failing: str
) -> None:
    record = Record(outcome="committed")  # what it would say is not even asked for
    source = PlayedSource(tmp_path, deciders.start(record).port)
    source.container.failures.add(failing)
    source.dump.failures.add(failing)
    with pytest.raises(AgentError, match=f"{failing} has failed"):
        source.armed.go()
    assert record.asked == []
    assert source.done[-3:] == ["end dump", "go on", "policy"]
    assert source.controller.events[-2:] == ["thawed", "settled"]
    assert source.controller.messages[-1]["outcome"] == "rolled back"


def test_what_a_dump_would_lose_unread_is_said_and_nothing_is_frozen_or_held(
    tmp_path: Path, deciders: Deciders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "UNREAD_S", 0.01)
    source = PlayedSource(tmp_path, deciders.start(Record()).port)
    source.container.processes = (os.getpid(),)
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(0)
    libc.inotify_add_watch(watch, os.fsencode(tmp_path), 0x100)
    (tmp_path / "new").touch()
    try:
        with pytest.raises(AgentError, match="events of inotify"):
            source.armed.go()
    finally:
        os.close(watch)
    assert "freeze" not in source.done
    assert source.controller.messages[-1]["outcome"] == "rolled back"


def test_an_event_that_comes_with_the_freeze_is_waited_for_and_the_container_runs_meanwhile(
    tmp_path: Path, deciders: Deciders
) -> None:
    source = PlayedSource(tmp_path, deciders.start(Record(outcome="committed")).port)
    event = Held(7, 3, "anon_inode:inotify")
    source.container.events = [{event: unread.EVENTS}, {event: unread.EVENTS}, {}]
    source.destination_says(*ARRIVED)
    assert source.armed.go() is Outcome.COMMITTED
    assert source.done[:6] == ["freeze", "go on", "freeze", "go on", "freeze", "dump"]


def test_events_at_each_freeze_are_named_in_the_end(
    tmp_path: Path, deciders: Deciders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.0)
    source = PlayedSource(tmp_path, deciders.start(Record()).port)
    source.container.events = [{Held(7, 3, "anon_inode:inotify"): unread.EVENTS}] * 9
    with pytest.raises(AgentError, match="events of inotify or fanotify wait unread"):
        source.armed.go()
    assert source.runs


def test_one_of_a_group_that_fails_early_has_all_of_it_called_off(tmp_path: Path, deciders: Deciders) -> None:
    record = Record()
    source = PlayedSource(tmp_path, deciders.start(record).port, group=True)
    source.dump.failures.add("dumped")
    with pytest.raises(AgentError):
        source.armed.go()
    assert source.runs
    assert record.asked == ["call_off"]


@pytest.mark.parametrize("outcome", ["committed", "rolled back"])
def test_once_everything_is_sent_the_outcome_is_the_gateway_s_whatever_the_destination_says(
    tmp_path: Path, deciders: Deciders, outcome: str
) -> None:
    source = PlayedSource(tmp_path, deciders.start(Record(outcome=outcome)).port)
    source.destination_says({"failed": "no memory", "step": "restore"})
    if outcome == "committed":
        assert source.armed.go() is Outcome.COMMITTED
        assert not source.runs
    else:
        with pytest.raises(AgentError, match="no memory"):
            source.armed.go()
        assert source.runs
    assert source.controller.messages[-1] == {
        **source.controller.messages[-1],
        "event": "settled",
        "outcome": outcome,
    }


def test_a_destination_that_is_lost_after_everything_was_sent_decides_nothing(
    tmp_path: Path, deciders: Deciders
) -> None:
    record = Record()
    source = PlayedSource(tmp_path, deciders.start(record).port)
    source.destination.close()
    with pytest.raises(AgentError):
        source.armed.go()
    assert record.asked == ["call_off"]
    assert source.runs


@pytest.mark.parametrize("outcome", [Outcome.COMMITTED, Outcome.ROLLED_BACK])
def test_a_source_whose_gateway_is_silent_stays_frozen_until_the_controller_tells_it(
    tmp_path: Path, deciders: Deciders, silent: int, outcome: Outcome
) -> None:
    source = PlayedSource(tmp_path, deciders.start(Record()).port)
    source.lose_gateway(silent)
    source.destination_says(*ARRIVED)
    assert source.armed.go() is Outcome.UNDECIDED
    assert "undecided" in source.controller.events
    source.armed.decided(Outcome.UNDECIDED)
    assert not source.runs
    assert "policy" not in source.done
    source.armed.decided(outcome)
    assert source.runs is (outcome is Outcome.ROLLED_BACK)
    assert ("policy" in source.done) is source.runs
    source.armed.decided(Outcome.ROLLED_BACK)
    assert source.runs is (outcome is Outcome.ROLLED_BACK), "the first answer is the only one"


def test_a_source_that_is_undecided_asks_on_at_its_end_and_does_what_the_gateway_says(
    tmp_path: Path, deciders: Deciders, silent: int
) -> None:
    source = PlayedSource(tmp_path, deciders.start(Record()).port)
    source.lose_gateway(silent)
    source.destination_says(*ARRIVED)
    assert source.armed.go() is Outcome.UNDECIDED
    closing = threading.Thread(target=source.armed.close, daemon=True)
    closing.start()
    time.sleep(0.2)
    assert closing.is_alive()
    assert not source.runs
    (tmp_path / "outcome").write_text("committed")  # by `recover`
    closing.join(10)
    assert not closing.is_alive()
    assert not source.runs


def test_the_restart_policy_that_could_not_be_put_back_is_put_back_at_the_end(
    tmp_path: Path, deciders: Deciders
) -> None:
    source = PlayedSource(tmp_path, deciders.start(Record()).port)
    source.dump.failures.add("dumped")
    source.policy.failures.add("policy")
    with pytest.raises(AgentError, match="dumped"):
        source.armed.go()
    with pytest.raises(AgentError, match="policy"):
        source.armed.close()
    source.policy.failures.clear()
    source.armed.close()
    assert source.done[-2:] == ["policy", "end dump"]


def test_a_second_order_to_remove_the_container_is_answered_as_the_first(
    tmp_path: Path, deciders: Deciders
) -> None:
    source = PlayedSource(tmp_path, deciders.start(Record(outcome="committed")).port)
    source.destination_says(*ARRIVED)
    source.armed.go()
    source.dump.failures.add("fetched")
    with pytest.raises(AgentError, match="fetched"):
        source.armed.remove_container()
    assert "remove" not in source.done, "its memory is not all there yet"
    source.dump.failures.clear()
    first = source.armed.remove_container()
    assert source.armed.remove_container() == first
    assert first.page_bytes == 4096
    assert source.done.count("remove") == 1


@pytest.mark.parametrize("removed", [False, True])
def test_the_end_after_a_commit_never_thaws(tmp_path: Path, deciders: Deciders, removed: bool) -> None:
    source = PlayedSource(tmp_path, deciders.start(Record(outcome="committed")).port)
    source.destination_says(*ARRIVED)
    source.armed.go()
    if removed:
        source.armed.remove_container()
    source.armed.close()
    assert "go on" not in source.done
    assert "policy" not in source.done
    assert source.done[-1] == "end dump after the commit"


def test_a_source_that_was_armed_and_never_told_to_go_runs_on(tmp_path: Path, deciders: Deciders) -> None:
    record = Record()
    source = PlayedSource(tmp_path, deciders.start(record).port)
    source.armed.close()
    assert record.asked == []
    assert source.done == ["end dump", "go on", "policy", "end dump"]


def test_what_is_removed_is_never_what_the_gateway_has_not_given_away(
    tmp_path: Path, deciders: Deciders
) -> None:
    source = PlayedSource(tmp_path, deciders.start(Record()).port)
    source.dump.failures.add("dumped")
    with pytest.raises(AgentError):
        source.armed.go()
    with pytest.raises(AgentError, match="has not said"):
        source.armed.remove_container()
    assert "remove" not in source.done
