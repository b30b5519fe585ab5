"""Whatever bytes a peer sends: a value, or one sentence, at once. A few seconds of them here.

`tests/fuzz/wire_readers.py` does a million more, by hand.
"""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from wire_targets import HOSTILE, TARGETS, seeds

from sealift_agent import authenticated, messages
from sealift_agent.wire import AgentError

SECONDS_PER_TARGET = 0.4
LIMIT_S = 0.1
GOOD = seeds()
TREES = frozenset({"layer"})
NOTHING_MORE = {"links": [], "files": False}
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat"]), st.integers(0, 1 << 16), st.integers(0, 255)
    ),
    max_size=5,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def mutate(data: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
    changed = bytearray(data)
    for kind, place, value in mutations:
        at = place % (len(changed) + 1)
        if kind == "cut":
            del changed[at:]
        elif kind == "insert":
            changed[at:at] = bytes([value]) * (place % 40)
        elif kind == "repeat":
            changed += changed[at : at + value]
        elif at < len(changed):
            changed[at] ^= 1 << value % 8
    return bytes(changed)


def survives(name: str, data: bytes) -> None:
    took = []
    for _ in range(2):  # a pause of the machine is not the reader's: what is slow is tried again
        began = time.thread_time()
        with contextlib.suppress(AgentError):
            TARGETS[name](data)
        took.append(time.thread_time() - began)
        if took[-1] <= LIMIT_S:
            return
    pytest.fail(f"{name} took {min(took) * 1000:.0f} ms")


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_good_inputs_are_read(name: str) -> None:
    TARGETS[name](GOOD[name])


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_a_hostile_peer_would_begin_with_is_a_value_or_a_sentence(name: str) -> None:
    for data in HOSTILE:
        survives(name, data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_any_bytes_are_a_value_or_a_sentence(name: str) -> None:
    end = time.monotonic() + SECONDS_PER_TARGET

    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.one_of(
            st.binary(max_size=300).map(lambda raw: (raw, [])), st.tuples(st.just(GOOD[name]), MUTATIONS)
        )
    )
    def attempt(case: tuple[bytes, list[tuple[str, int, int]]]) -> None:
        if time.monotonic() < end:
            survives(name, mutate(*case))

    attempt()


class Said:
    """A link on which somebody has said this."""

    def __init__(self, message: dict[str, object]) -> None:
        self.message = message

    def receive(self, _: float | None = None) -> dict[str, object]:
        return self.message

    def send(self, **_: object) -> None: ...


KEY = "11" * 32
READERS = {
    "ask": lambda said: authenticated.hear(Said(said), KEY, "m"),
    "nonce": lambda said: authenticated.hear(Said({"ask": "switch", "proof": "", **said}), KEY, "m"),
    "proof": lambda said: authenticated.ask(Said({"answer": "{}", **said}), KEY, "m", "switch", 1),
    "answer": lambda said: authenticated.ask(Said({"proof": "", **said}), KEY, "m", "switch", 1),
    "printed": lambda said: (messages.printed(said), messages.taken(said)),
    "alive": messages.is_alive,
    "outcome": messages.outcome,
    "held": messages.held,
    "error": messages.refusal,
    "phase": messages.progress,
    "images": lambda said: messages.sent({**NOTHING_MORE, **said}, TREES),
    "links": lambda said: messages.sent({"images": [], "files": False, **said}, TREES),
    "bytes_s": messages.rate,
}


@pytest.mark.parametrize("name", sorted(READERS))
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(value=VALUES)
def test_a_field_of_any_value_is_what_it_has_to_be_or_a_sentence(name: str, value: object) -> None:
    with contextlib.suppress(AgentError):
        READERS[name]({name: value})


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", ".hidden", "a\0b", "a\n", "\ud800", "-rf", "a" * 256]
)
def test_an_image_has_a_plain_file_name(name: str) -> None:
    with pytest.raises(AgentError, match="name"):
        messages.sent({"images": [{"name": name, "size": 1}], **NOTHING_MORE}, TREES)


@pytest.mark.parametrize("name", ["", "../x", "/x", "a/../../x", "x\0"])
def test_a_link_lies_beneath_its_tree(name: str) -> None:
    for pair in ([name, "other"], ["name", name]):
        with pytest.raises(AgentError, match="beneath"):
            messages.sent({"images": [], "files": False, "links": [["layer", *pair]]}, TREES)
