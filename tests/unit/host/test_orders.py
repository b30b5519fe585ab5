"""Orders: what is no order, or comes in the wrong phase, is refused before anything is done."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Optional, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift_agent import codec, protocol, table
from sealift_agent.messages import AgentError, Misunderstood
from sealift_agent.orders import Orders
from sealift_agent.protocol import EVENTS, ORDERS, Outcome, Phase, Role

PAGE = Path(__file__).parents[3] / "docs/protocol.md"
EXAMPLES: dict[Any, Any] = {
    None: None,
    Any: [1],
    str: "a",
    int: 1,
    float: 0.5,
    bool: True,
    Outcome: Outcome.COMMITTED,
}


def example(kind: Any) -> Any:
    """One of that type, with something in each field."""
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{each.name: example(types[each.name]) for each in fields(kind)})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return [example(arguments[0])]
    if origin is dict:
        return {"a": example(arguments[1])}
    return example(arguments[0]) if origin is Union else EXAMPLES[kind]


@pytest.mark.parametrize("kind", ORDERS.values(), ids=lambda kind: f"{kind.ROLE}-{kind.NAME}")
def test_every_order_comes_to_the_agent_as_it_was_made(kind: Any) -> None:
    made = example(kind)
    assert codec.decode(kind, json.loads(json.dumps(codec.encode(made)))) == made


@pytest.mark.parametrize("kind", ORDERS.values(), ids=lambda kind: f"{kind.ROLE}-{kind.NAME}")
def test_a_field_that_is_missing_unknown_or_of_another_type_is_an_error(kind: Any) -> None:
    whole = codec.encode(example(kind))
    wrong = [{**whole, "unknown": 1}, [], None, "a"]
    wrong += [{**whole, each.name: object()} for each in fields(kind)]
    for each in fields(kind):
        if each.type not in {"bool", "Outcome"}:
            wrong.append({**whole, each.name: True})
    for message in wrong:
        with pytest.raises(Misunderstood):
            codec.decode(kind, message)


@pytest.mark.parametrize("kind", ORDERS.values(), ids=lambda kind: f"{kind.ROLE}-{kind.NAME}")
def test_every_answer_comes_to_the_controller_as_it_was_made(kind: Any) -> None:
    made = example(kind.ANSWER)
    whole = json.loads(json.dumps(codec.encode(made)))
    assert codec.decode(kind.ANSWER, whole) == made
    if is_dataclass(made):
        for wrong in ({**whole, "unknown": 1}, *({**whole, each.name: object()} for each in fields(made))):
            with pytest.raises(Misunderstood):
                codec.decode(kind.ANSWER, wrong)


def test_no_answer_is_an_open_table_but_what_docker_says() -> None:
    assert [kind for kind in ORDERS.values() if "Any" in str(kind.ANSWER)] == [protocol.RestartPolicy]


@pytest.mark.parametrize("kind", EVENTS.values(), ids=lambda kind: kind.NAME)
def test_every_event_comes_to_the_controller_as_it_was_made(kind: Any) -> None:
    made = example(kind)
    message = json.loads(json.dumps(codec.encode_event(made, 7)))
    assert codec.decode_event(message) == (7, made)
    for wrong in (
        {**message, "unknown": 1},
        {**message, "at_ns": None},
        {**message, "event": "unknown"},
        *({**message, each.name: object()} for each in fields(kind)),
    ):
        with pytest.raises(Misunderstood):
            codec.decode_event(wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(list(ORDERS.values())), st.data())
def test_whatever_comes_is_an_order_or_one_sentence(kind: Any, data: st.DataObject) -> None:
    names = st.sampled_from([*(each.name for each in fields(kind)), "other"])
    message = data.draw(JSON | st.dictionaries(names, JSON))
    try:
        made = codec.decode(kind, message)
    except Misunderstood as refused:
        made, said = None, str(refused)
    if made is None:
        assert said.isprintable()
    else:
        assert codec.decode(kind, codec.encode(made)) == made


@pytest.mark.parametrize(
    ("kind", "value", "is_one"),
    [
        (int, True, False),
        (int, 1.0, False),
        (int, 1 << 70, False),
        (bool, 1, False),
        (float, 1, True),
        (float, float("nan"), False),
        (str, 1, False),
        (None, 0, False),
        (list[int], [1, "a"], False),
        (dict[str, int], {"a": None}, False),
        (Optional[int], None, True),  # noqa: UP045 - as the protocol has it
        (Outcome, "maybe", False),
        (Outcome, "rolled back", True),
    ],
)
def test_a_value_is_what_its_type_says(kind: Any, value: Any, is_one: bool) -> None:
    if is_one:
        codec.decode(kind, value)
        return
    with pytest.raises(Misunderstood):
        codec.decode(kind, value)


@pytest.fixture
def source() -> tuple[Orders, list[str]]:
    """A source's agent that only writes down what it is to do."""
    done: list[str] = []
    orders = Orders(Role.SOURCE)
    answers: dict[str, Any] = {"open": ["pipe:[1]"], "live_pass": 5, "go": Outcome.COMMITTED}
    answers["remove_container"] = protocol.Removed(7)

    def carry_out(order: protocol.Order[Any]) -> Any:
        done.append(order.NAME)
        return answers.get(order.NAME)

    for (role, _), kind in ORDERS.items():
        if role is Role.SOURCE:
            orders.on(kind, carry_out)
    return orders, done


def give(orders: Orders, order: protocol.Order[Any]) -> Any:
    return orders.carry_out(order.NAME, codec.encode(order))


def test_a_migration_goes_through_its_phases(source: tuple[Orders, list[str]]) -> None:
    orders, done = source
    assert give(orders, example(protocol.OpenSource)) == ["pipe:[1]"]
    assert give(orders, protocol.LivePass()) == 5
    give(orders, example(protocol.ArmSource))
    assert give(orders, protocol.Go()) == "committed"
    assert give(orders, protocol.RemoveContainer()) == {"page_bytes": 7}
    give(orders, protocol.CloseSource())
    assert orders.phase is Phase.CLOSED
    assert done == ["open", "live_pass", "arm", "go", "remove_container", "close"]


@pytest.mark.parametrize(
    ("before", "order"),
    [
        ([], protocol.Go()),
        ([], protocol.LivePass()),
        ([], protocol.RemoveContainer()),
        ([example(protocol.OpenSource)], protocol.Go()),
        ([example(protocol.OpenSource)], protocol.SourceDecided(Outcome.COMMITTED)),
        ([example(protocol.OpenSource), example(protocol.ArmSource)], protocol.LivePass()),
        ([example(protocol.OpenSource), example(protocol.ArmSource), protocol.Go()], protocol.Go()),
        ([example(protocol.OpenSource), protocol.CloseSource()], example(protocol.ArmSource)),
    ],
    ids=lambda case: case.NAME if isinstance(case, protocol.Order) else "-".join(each.NAME for each in case),
)
def test_an_order_in_the_wrong_phase_is_refused_and_nothing_is_done(
    source: tuple[Orders, list[str]], before: list[protocol.Order[Any]], order: protocol.Order[Any]
) -> None:
    orders, done = source
    for each in before:
        give(orders, each)
    phase = orders.phase
    with pytest.raises(AgentError, match=f"the order '{order.NAME}' comes in the phase '{phase}'"):
        give(orders, order)
    assert len(done) == len(before)
    assert orders.phase is phase


def test_an_order_that_fails_leaves_the_phase_as_it_was_but_for_the_cutover() -> None:
    orders = Orders(Role.SOURCE)

    def fail(_: object) -> None:
        raise AgentError("no")

    for kind in (protocol.OpenSource, protocol.ArmSource, protocol.Go):
        orders.on(kind, fail)
    for phase, order, then in (
        (Phase.NEW, example(protocol.OpenSource), Phase.NEW),
        (Phase.OPENED, example(protocol.ArmSource), Phase.OPENED),
        (Phase.ARMED, protocol.Go(), Phase.CUTOVER),
    ):
        orders.phase = phase
        with pytest.raises(AgentError, match="no"):
            give(orders, order)
        assert orders.phase is then


def test_an_answer_that_is_not_what_the_protocol_says_is_an_error() -> None:
    orders = Orders(Role.FACTS)
    orders.on(protocol.TreeBytes, lambda _: "many")
    with pytest.raises(Misunderstood, match="the answer to 'tree_bytes' is not a whole number"):
        give(orders, protocol.TreeBytes([]))


def test_what_is_no_order_of_this_agent_is_named() -> None:
    with pytest.raises(AgentError, match="there is no order 'reboot'"):
        Orders(Role.FACTS).carry_out("reboot", {})


def test_the_page_of_the_protocol_is_made_from_it() -> None:
    assert PAGE.read_text() == table.page(), "python -m sealift_agent.table >docs/protocol.md"
