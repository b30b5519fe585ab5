"""How a session is put away: each host is told what was decided, and what can't be done is left on the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pytest
from parties_at_hand import Three

from sealift.errors import CommandFailed, HostUnreachable
from sealift.migration import closing as module
from sealift.migration.closing import Closing
from sealift.migration.endings import Made
from sealift.model import Step
from sealift_agent.protocol import (
    CloseDestination,
    CloseSource,
    Complete,
    Discard,
    Note,
    Outcome,
    ReleaseHeld,
    RemoveContainer,
    Removed,
    Resume,
    SweepCopy,
    SweepUnnamed,
    TakeOver,
)

if TYPE_CHECKING:
    from sealift_agent.protocol import Order


class Fresh:
    """Agents that are started in the place of lost ones. `orders` are all that they have got."""

    def __init__(self) -> None:
        self.orders: list[Order[Any]] = []
        self.failure: Exception | None = None

    def __call__(self, _connection: Any, _role: str) -> Fresh:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, order: Order[Any]) -> None:
        if self.failure is not None:
            raise self.failure
        self.orders.append(order)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Fresh:
    made = Fresh()
    monkeypatch.setattr(module, "Agent", made)
    return made


def noted() -> Three:
    """A migration that the gateway has on its record."""
    three = Three()
    three.journal.note_opened("source", "destination", Made("box", "sha256:1", []))
    return three


def closed(three: Three) -> bool:
    return any(isinstance(order, Note) and order.phase == "closed" for order in three.gateway.orders)


GONE = HostUnreachable("it is gone", host="source")


def test_an_unknown_outcome_touches_neither_copy(fresh: Fresh) -> None:
    three = noted()
    closing = Closing(three.parties, three.journal)
    closing.put_away(None)
    assert not three.source.orders
    assert not three.destination.orders
    assert not fresh.orders
    assert not closed(three)
    assert "sealift recover" in closing.left[0]


def test_a_roll_back_ends_both_agents_and_the_record(fresh: Fresh) -> None:
    three = noted()
    closing = Closing(three.parties, three.journal)
    closing.put_away(Outcome.ROLLED_BACK)
    assert three.source.orders == [CloseSource()]
    assert three.destination.orders == [CloseDestination(called_off=True)]
    assert closed(three)
    assert not closing.left
    assert not fresh.orders


def test_a_commit_that_was_interrupted_removes_the_sources_copy_once() -> None:
    three = noted()
    three.source.answer(RemoveContainer, Removed(4096))
    closing = Closing(three.parties, three.journal)
    assert closing.remove_source() == 4096
    closing.put_away(Outcome.COMMITTED)
    assert three.source.orders == [RemoveContainer(), CloseSource()]

    three = noted()
    Closing(three.parties, three.journal).put_away(Outcome.COMMITTED)
    assert three.source.orders == [RemoveContainer(), CloseSource()]
    assert three.destination.orders == [CloseDestination(called_off=False)]


@pytest.mark.parametrize(
    ("outcome", "orders"),
    [
        (Outcome.ROLLED_BACK, [Resume, SweepCopy]),
        (Outcome.COMMITTED, [Discard, Discard, Complete]),
    ],
)
def test_lost_agents_are_replaced_by_fresh_ones(
    fresh: Fresh, outcome: Outcome, orders: list[type[Order[Any]]]
) -> None:
    three = noted()
    for order in (CloseSource, RemoveContainer):
        three.source.answer(order, GONE)
    three.destination.answer(CloseDestination, GONE)
    closing = Closing(three.parties, three.journal)
    closing.put_away(outcome)
    assert [type(order) for order in fresh.orders] == orders
    assert closed(three)
    assert closing.left


def test_a_host_that_is_gone_leaves_the_record_open(fresh: Fresh) -> None:
    three = noted()
    three.source.answer(CloseSource, GONE)
    fresh.failure = GONE
    Closing(three.parties, three.journal).put_away(Outcome.ROLLED_BACK)
    assert not closed(three)


def test_what_was_being_created_when_it_ended_is_swept_by_what_it_was_made_of(fresh: Fresh) -> None:
    three = noted()
    three.journal.created(None, {})
    made = Made("box", "sha256:1", ["data"])
    with pytest.raises(KeyboardInterrupt), three.journal.making(made):
        raise KeyboardInterrupt
    Closing(three.parties, three.journal).put_away(Outcome.ROLLED_BACK)
    assert fresh.orders == [SweepUnnamed("m1", "box", "sha256:1", ["data"])]


@pytest.mark.parametrize(("step", "closes"), [(Step.FINISH, True), (Step.NETWORK_SWITCH, False)])
def test_a_copy_whose_memory_was_never_fetched_is_left_to_its_owner(step: Step, closes: bool) -> None:
    three = noted()
    three.source.answer(RemoveContainer, CommandFailed("not now", host="source", step=step))
    closing = Closing(three.parties, three.journal)
    with pytest.raises(CommandFailed):
        closing.remove_source()
    closing.put_away(Outcome.COMMITTED)
    assert three.source.got(RemoveContainer) == [RemoveContainer()]
    assert closed(three) is closes


def test_what_a_lost_gateway_holds_is_let_go_by_another_agent() -> None:
    three = noted()
    three.gateway.lost = True
    three.gateway.answer(ReleaseHeld, None)
    three.gateway.answer(module.End, GONE)
    three.gateway.answer(TakeOver, True)
    Closing(three.parties, three.journal).put_away(Outcome.ROLLED_BACK)
    assert three.gateway.got(ReleaseHeld) == [ReleaseHeld("10.0.0.9")]
    assert three.gateway.got(TakeOver) == [TakeOver("m1")]
    assert closed(three)


def test_a_migration_that_was_never_on_record_closes_none() -> None:
    three = Three()
    Closing(three.parties, three.journal).put_away(Outcome.ROLLED_BACK)
    assert not closed(three)
