"""Who has the container after a cutover, whatever is answered, and by whom: the controller's side of it, alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from parties_at_hand import POLICY, PORT, Three

from sealift.errors import CommandFailed, HostUnreachable, MigrationFailed, OutcomeUnknown, SealiftError
from sealift.migration import cutover as module
from sealift.migration.cutover import Cutover, Together
from sealift.migration.steps import first_failure
from sealift.model import CUTOVER, Step
from sealift_agent.protocol import (
    ArmDestination,
    ArmSource,
    Began,
    CallOff,
    Committed,
    Decide,
    DestinationDecided,
    End,
    Event,
    Frozen,
    Go,
    Happened,
    ImagesSent,
    LastDumped,
    Note,
    Noted,
    Outcome,
    Received,
    RestartPolicy,
    Restored,
    Settled,
    SourceDecided,
    Undecided,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TOLD = (Began(), Frozen(), LastDumped(0), ImagesSent(0), Received(), Restored(), Committed())
WAIT_S = 10


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked again after a second where a tenth is enough."""
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(module, "REVIVE_AGAIN_S", 0.01)


def made(three: Three, together: Together | None = None) -> Cutover:
    return Cutover(three.request, three.parties, three.journal, three.ready, together)


def says(cutover: Cutover, *events: Event) -> None:
    """The source's events, ten milliseconds apart by its clock."""
    for event in events:
        cutover.hear(Happened(TOLD.index(event) * 10_000_000 if event in TOLD else 0, event))


def go(cutover: Cutover, *events: Event, end: Any = Outcome.COMMITTED) -> Callable[[Go], Any]:
    """What the source does at the word: it tells of its events, then it answers, or fails."""

    def act(_: Go) -> Any:
        says(cutover, *events)
        if isinstance(end, BaseException):
            raise end
        return end

    return act


def ended(three: Three, cutover: Cutover, *events: Event, end: Any = Outcome.COMMITTED) -> Outcome | None:
    """Run a cutover to its end. Its outcome."""
    three.source.answer(Go, go(cutover, *events, end=end))
    cutover.begin()
    cutover.wait(Step.NETWORK_SWITCH)
    return cutover.settle()


def test_a_commit_is_told_by_steps_with_the_times_of_the_sources_clock() -> None:
    three = Three()
    cutover = made(three)
    assert ended(three, cutover, *TOLD) is Outcome.COMMITTED
    moved = cutover.moved()
    assert [record.step for record in moved.steps] == list(CUTOVER)
    assert [record.duration_ms for record in moved.steps] == [20, 20, 10, 10]
    assert not three.gateway.got(CallOff)
    assert not three.destination.got(DestinationDecided)


def test_both_hosts_are_armed_before_the_word_and_the_journal_knows_the_policy_before_it_is_suspended() -> (
    None
):
    three = Three()
    ended(three, made(three), *TOLD)
    assert [type(order) for order in three.source.orders] == [RestartPolicy, ArmSource, Go]
    [armed] = three.gateway.got(Note)
    assert isinstance(armed, Note)
    assert (armed.phase, armed.facts) == ("armed", Noted(restart_policy=POLICY))
    assert three.journal.traces.restart_policy == POLICY
    for armed_at in (*three.source.got(ArmSource), *three.destination.got(ArmDestination)):
        assert armed_at.gateway.port == PORT  # type: ignore[attr-defined]


def test_a_roll_back_that_the_source_has_settled_is_one() -> None:
    three = Three()
    cutover = made(three)

    def fail(_: Go) -> None:
        says(cutover, *TOLD[:5], Settled(Outcome.ROLLED_BACK))
        raise CommandFailed("CRIU has failed", host="source", step=Step.RESTORE)

    three.source.answer(Go, fail)
    cutover.begin()
    cutover.wait(Step.RESTORE)
    assert cutover.settle() is Outcome.ROLLED_BACK
    assert not three.gateway.got(CallOff)
    with pytest.raises(MigrationFailed, match="rolled back and the container goes on at source") as raised:
        cutover.record(Step.RESTORE)
    assert (raised.value.step, raised.value.host) == (Step.RESTORE, "destination")
    assert cutover.record(Step.TRANSFER).step is Step.TRANSFER
    with pytest.raises(MigrationFailed):
        cutover.moved()


@pytest.mark.parametrize(
    "end", [CommandFailed("it fell over", host="source"), HostUnreachable("it is gone", host="source")]
)
@pytest.mark.parametrize("decided", [Outcome.COMMITTED, Outcome.ROLLED_BACK])
def test_what_the_source_does_not_settle_the_gateway_decides(end: SealiftError, decided: Outcome) -> None:
    three = Three()
    three.gateway.answer(CallOff, decided)
    cutover = made(three)
    assert ended(three, cutover, *TOLD[:2], end=end) is decided
    assert three.gateway.got(CallOff) == [CallOff("m1")]
    if decided is Outcome.COMMITTED:
        assert len(cutover.moved().steps) == len(CUTOVER)
        assert three.destination.got(DestinationDecided) == [DestinationDecided(Outcome.COMMITTED)]
        assert three.gateway.got(End)
    else:
        with pytest.raises(MigrationFailed, match="called off"):
            cutover.moved()
        assert not three.destination.got(DestinationDecided)


@pytest.mark.parametrize("decided", [Outcome.COMMITTED, Outcome.ROLLED_BACK])
def test_a_source_that_can_not_reach_the_gateway_is_told_what_was_decided(decided: Outcome) -> None:
    three = Three()
    three.gateway.answer(CallOff, decided)
    assert ended(three, made(three), *TOLD[:4], end=Outcome.UNDECIDED) is decided
    assert three.source.got(SourceDecided) == [SourceDecided(decided)]


def test_nobody_says_an_outcome_that_nobody_has_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATEWAY_BACK_S", 0)
    three = Three()
    three.gateway.answer(CallOff, HostUnreachable("it is gone", host="gateway"))
    cutover = made(three)
    assert ended(three, cutover, TOLD[0], end=HostUnreachable("it is gone", host="source")) is None
    with pytest.raises(OutcomeUnknown, match="the gateway can't be asked"):
        cutover.record(Step.FINAL_DUMP)
    assert not three.destination.got(DestinationDecided)
    assert not three.source.got(SourceDecided)


def test_a_gateway_that_the_hosts_can_not_reach_gets_another_agent_at_the_same_port() -> None:
    three = Three()
    cutover = made(three)
    revived = threading.Event()

    def wait_for_it(_: Go) -> Outcome:
        says(cutover, TOLD[0], Undecided("no answer"))
        three.gateway.answer(Decide, lambda _: revived.set())
        assert revived.wait(WAIT_S)
        says(cutover, *TOLD[1:])
        return Outcome.COMMITTED

    three.source.answer(Go, wait_for_it)
    cutover.begin()
    cutover.wait(Step.NETWORK_SWITCH)
    assert cutover.settle() is Outcome.COMMITTED
    first, again, *_ = three.gateway.got(Decide)
    assert isinstance(first, Decide)
    assert isinstance(again, Decide)
    assert (first.port, again.port) == (0, PORT)
    assert (first.token, first.key) == (again.token, again.key)
    assert three.gateway.revived[0] == ("m1", "10.0.0.9")


def test_a_source_that_hangs_with_its_container_frozen_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.1)
    three = Three()
    cutover = made(three)

    def hang(_: Go) -> Outcome:
        says(cutover, *TOLD[:2])
        for _ in range(100 * WAIT_S):
            if three.source.given_up:
                raise HostUnreachable("it says nothing", host="source")
            threading.Event().wait(0.01)
        raise AssertionError("nobody has missed it")

    three.source.answer(Go, hang)
    cutover.begin()
    cutover.wait(Step.NETWORK_SWITCH)
    assert cutover.settle() is Outcome.ROLLED_BACK
    assert three.gateway.got(CallOff)


def test_what_was_ended_before_it_began_never_begins() -> None:
    three = Three()
    cutover = made(three)
    cutover.arm()
    assert cutover.settle() is Outcome.ROLLED_BACK
    with pytest.raises(MigrationFailed, match="before anything was frozen"):
        cutover.begin()
    assert not three.source.got(Go)


def test_a_host_that_can_not_be_armed_ends_it_before_the_word() -> None:
    three = Three()
    three.destination.answer(ArmDestination, CommandFailed("no port in the bridge", host="destination"))
    cutover = made(three)
    with pytest.raises(CommandFailed, match="no port"):
        cutover.begin()
    assert not three.source.got(ArmSource, Go)
    assert cutover.settle() is Outcome.ROLLED_BACK


def test_of_a_group_nobody_begins_without_the_others_and_the_cause_is_told() -> None:
    one, two = Three("one", "m1"), Three("two", "m2")
    two.destination.answer(ArmDestination, CommandFailed("no port in the bridge", host="destination"))
    together = Together({"m1": "one", "m2": "two"})
    pair = [made(one, together), made(two, together)]
    failures: dict[Cutover, SealiftError] = {}

    def begin(cutover: Cutover) -> None:
        try:
            cutover.begin()
        except SealiftError as failed:
            failures[cutover] = failed

    threads = [threading.Thread(target=begin, args=(cutover,)) for cutover in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not one.source.got(Go)
    assert not two.source.got(Go)
    assert "another container of the group" in str(failures[pair[0]])
    assert "no port in the bridge" in str(first_failure(failures))
    assert [cutover.settle() for cutover in pair] == [Outcome.ROLLED_BACK] * 2


def test_members_of_a_group_have_one_decision() -> None:
    one, two = Three("one", "m1"), Three("two", "m2")
    together = Together({"m1": "one", "m2": "two"})
    pair = [(three, made(three, together)) for three in (one, two)]
    for three, cutover in pair:
        three.source.answer(Go, go(cutover, *TOLD))
    threads = [threading.Thread(target=cutover.begin) for _, cutover in pair]
    for thread in threads:
        thread.start()
    for three, cutover in pair:
        cutover.wait(Step.NETWORK_SWITCH)
        assert cutover.moved().group == ("one", "two")
        [asked] = three.gateway.got(Decide)
        assert isinstance(asked, Decide)
        assert asked.members == ["m1", "m2"]


def test_what_nobody_expected_in_the_middle_is_not_taken_for_a_commit() -> None:
    three = Three()
    cutover = made(three)
    assert ended(three, cutover, *TOLD[:3], end=KeyError("a field that is not there")) is None
    assert cutover.record(Step.FINAL_DUMP).duration_ms == 20
    with pytest.raises(KeyError):
        cutover.record(Step.NETWORK_SWITCH)
    with pytest.raises(KeyError):
        cutover.moved()


def test_a_cutover_without_an_end_is_none_that_has_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CUTOVER_TIMEOUT_S", 0.05)
    three = Three()
    cutover, let_go = made(three), threading.Event()
    three.source.answer(Go, lambda _: let_go.wait(WAIT_S) and Outcome.COMMITTED)
    cutover.begin()
    cutover.wait(Step.NETWORK_SWITCH)
    with pytest.raises(OutcomeUnknown, match="has not ended"):
        cutover.moved()
    assert cutover.settle() is None
    let_go.set()
