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

pytestmark = pytest.mark.alone

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


def slow_inputs() -> dict[str, list[bytes]]:
    """What costs most at the largest size that each of these formats allows."""
    from sealift.evidence.formats import der
    from sealift.evidence.formats.x509_certificate import make_name, write_pss_sha384

    algorithm, name = write_pss_sha384(), make_name("a", "b")
    moment = der.write(der.UTC_TIME, b"260101000000Z")
    tail = (algorithm, der.write_bits(bytes(512)))

    def crl(entry: bytes) -> bytes:
        listed = der.write(der.SEQUENCE, entry * (23_000 // len(entry)))
        parts = (der.write_integer(1), algorithm, name, moment, moment, listed)
        return der.write(der.SEQUENCE, der.write(der.SEQUENCE, *parts), *tail)

    def certificate(subject: bytes, extensions: bytes) -> bytes:
        version = der.write(der.explicit(0), der.write_integer(2))
        dates, key = der.write(der.SEQUENCE, moment, moment), der.write(der.SEQUENCE, b"\5\0" * 2)
        parts = (version, der.write_integer(0), algorithm, name, dates, subject, key, extensions)
        return der.write(der.SEQUENCE, der.write(der.SEQUENCE, *parts), *tail)

    attribute = der.write(der.SEQUENCE, der.write_object_id("2.5.4.3"), b"\x0c\0")
    many_names = certificate(der.write(der.SEQUENCE, der.write(der.SET, attribute) * 500), b"")
    listed = (der.write(der.SEQUENCE, der.write_object_id(f"1.2.{each}"), b"\4\0") for each in range(640))
    many_extensions = certificate(name, der.write(der.explicit(3), der.write(der.SEQUENCE, *listed)))
    dotted, numbered = b"a." * 8000 + b"a=1", b"".join(b"k%d=1\n" % each for each in range(1700))
    tables = b"".join(b"[snp.tcb_floor.p%d]\nsnp=1\n" % each for each in range(500))
    extended = b"\x30\x10\2\1\1\5\0\x30\x09\x30\7\6\1\x2a\4\2\5\0"
    return {
        "crl": [crl(b"\x30\5\2\1\1\5\0"), crl(extended)],
        "x509": [many_names, many_extensions],
        "load_certificates": [many_extensions * 4, many_names * 4],
        "show": [many_extensions * 4, many_names * 4],
        "policy": [dotted, numbered, tables, b"a=[" + b"1," * 8000 + b"]"],
        "unarmour": [b"0 " * 130_000, b"-----BEGIN A-----\n" + b"A" * 200_000],
    }


@pytest.mark.parametrize("name", sorted(slow_inputs()))
def test_the_costliest_inputs_that_a_size_allows_take_50_ms_at_most(name: str) -> None:
    for data in slow_inputs()[name]:
        survives(name, data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_large_inputs_are_refused_in_no_time(good: dict[str, bytes], name: str) -> None:
    survives(name, good[name] + bytes(1 << 20))
    survives(name, b"\x30" * (1 << 18))
    survives(name, b"A" * (1 << 18))
    survives(name, b"-----BEGIN X-----\n" * (1 << 12))
