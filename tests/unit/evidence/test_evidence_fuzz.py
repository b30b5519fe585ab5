"""Whatever bytes come: the library's own error or a value, within 50 ms. About 20 seconds of them here.

`tests/fuzz/evidence_parsers.py` does a million more, by hand.
"""

from __future__ import annotations

import contextlib
import time

import pytest
from evidence_targets import TARGETS, seeds
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sealift.errors import UnusableInput

LIMIT_S = 0.050
SECONDS_PER_TARGET = 0.5
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat", "zero", "ones"]),
        st.integers(0, 1 << 16),
        st.integers(0, 255),
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    return seeds()


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
            changed[at] = {"flip": changed[at] ^ (1 << value % 8), "zero": 0, "ones": 0xFF}[kind]
    return bytes(changed)


def survives(name: str, data: bytes) -> None:
    start = time.thread_time()
    with contextlib.suppress(UnusableInput):
        TARGETS[name](data)
    taken = time.thread_time() - start
    if taken > LIMIT_S:
        # A pause of the machine is not the parser's: the same input again.
        start = time.thread_time()
        with contextlib.suppress(UnusableInput):
            TARGETS[name](data)
        taken = time.thread_time() - start
    assert taken <= LIMIT_S, f"{name} took {taken * 1000:.0f} ms"


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_good_inputs_are_read(good: dict[str, bytes], name: str) -> None:
    if name == "unarmour":
        assert TARGETS[name](good[name]) == [b"0\0"]
    else:
        TARGETS[name](good[name])


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_any_bytes_give_a_value_or_the_librarys_own_error(good: dict[str, bytes], name: str) -> None:
    end = time.monotonic() + SECONDS_PER_TARGET

    @settings(
        max_examples=250,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.one_of(
            st.binary(max_size=300).map(lambda raw: (raw, [])), st.tuples(st.just(good[name]), MUTATIONS)
        )
    )
    def attempt(case: tuple[bytes, list[tuple[str, int, int]]]) -> None:
        if time.monotonic() < end:
            survives(name, mutate(*case))

    attempt()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_large_inputs_are_refused_in_no_time(good: dict[str, bytes], name: str) -> None:
    survives(name, good[name] + bytes(1 << 20))
    survives(name, b"\x30" * (1 << 18))
    survives(name, b"A" * (1 << 18))
    survives(name, b"-----BEGIN X-----\n" * (1 << 12))
