"""Steps without a scheduler: at once for a group, again where a host does not answer, and the first failure told."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from parties_at_hand import Three

from sealift.errors import CommandFailed, HostUnreachable, MigrationFailed, Refused
from sealift.migration import cutover as module
from sealift.migration import steps
from sealift.migration.concurrently import Concurrently
from sealift.migration.cutover import Cutover, Together
from sealift_agent.protocol import (
    ArmDestination,
    Began,
    Committed,
    Go,
    Happened,
    LastDumped,
    Outcome,
    Received,
    Restored,
)

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 10


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "RETRY_DELAY_S", 0)
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.01)


def failing(times: int, error: Exception) -> tuple[Callable[[int], int], list[int]]:
    calls: list[int] = []

    def step(number: int) -> int:
        calls.append(number)
        if len(calls) <= times:
            raise error
        return number

    return step, calls


@pytest.mark.parametrize(
    ("times", "tries", "error"),
    [
        (2, 3, HostUnreachable("silent")),
        (3, 3, HostUnreachable("silent")),
        (1, 1, Refused("no", step="preflight")),
    ],
)
def test_only_a_host_that_does_not_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, times: int, tries: int, error: Exception
) -> None:
    step, calls = failing(times, error)
    monkeypatch.setattr(steps, "TRIED_AGAIN", (step,))
    if times < tries:
        assert Concurrently().in_turn(step, [(7,)]) == [7]
    else:
        with pytest.raises(type(error)):
            Concurrently().in_turn(step, [(7,)])
    assert len(calls) == tries


def test_a_step_that_changes_hosts_is_never_tried_again() -> None:
    step, calls = failing(1, HostUnreachable("silent"))
    with pytest.raises(HostUnreachable):
        Concurrently().at_once(step, [(1,)])
    assert calls == [1]
    assert steps.sync not in steps.TRIED_AGAIN


def test_members_of_a_group_are_at_a_step_at_once_and_all_end_before_a_failure_is_raised() -> None:
    together, ended = threading.Barrier(3), []

    def step(number: int) -> int:
        together.wait(WAIT_S)
        if number == 0:
            raise CommandFailed("the first")
        threading.Event().wait(0.05)
        ended.append(number)
        return number

    with pytest.raises(CommandFailed, match="the first"):
        Concurrently().at_once(step, [(0,), (1,), (2,)])
    assert sorted(ended) == [1, 2]


def pair() -> list[tuple[Three, Cutover]]:
    threes = [Three("one", "m1"), Three("two", "m2")]
    together = Together({"m1": "one", "m2": "two"})
    return [
        (three, Cutover(three.request, three.parties, three.journal, three.ready, together))
        for three in threes
    ]


def test_a_group_cuts_over_at_once() -> None:
    both = pair()
    together = threading.Barrier(2)
    for three, cutover in both:

        def go(_: Any, cutover: Cutover = cutover) -> Outcome:
            together.wait(WAIT_S)
            for number, event in enumerate((Began(), LastDumped(0), Received(), Restored(), Committed())):
                cutover.hear(Happened(number, event))
            return Outcome.COMMITTED

        three.source.answer(Go, go)
    moved = Concurrently().cut_over([cutover for _, cutover in both])
    assert [len(one.steps) for one in moved] == [4, 4]


def test_of_a_group_that_fails_the_cause_is_raised() -> None:
    both = pair()
    failure = CommandFailed("no port in the bridge", host="destination")
    both[1][0].destination.answer(ArmDestination, failure)
    with pytest.raises(CommandFailed, match="no port"):
        Concurrently().cut_over([cutover for _, cutover in both])
    assert not any(three.source.got(cast("Any", Go)) for three, _ in both)


@pytest.mark.parametrize("failing", [0, 1])
def test_what_nobody_expected_is_raised_at_once_by_whoever_it_comes_from(failing: int) -> None:
    """The others do not wait for it, and nobody takes a cutover that never began for one that is over."""
    both = pair()
    both[failing][0].destination.answer(ArmDestination, KeyError("a field that is not there"))
    began = time.monotonic()
    with pytest.raises(KeyError, match="not there"):
        Concurrently().cut_over([cutover for _, cutover in both])
    assert time.monotonic() - began < WAIT_S
    for three, cutover in both:
        assert not three.source.got(cast("Any", Go))
        with pytest.raises((KeyError, MigrationFailed)):
            cutover.moved()
