"""Sleeping calls in a thread's image: called again, in as many bytes, and only those that may be."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from sealift_agent import interrupted, proc
from sealift_agent.images import messages
from sealift_agent.interrupted import INTERRUPTED, Call, Interrupted
from sealift_agent.protobuf import fields, written

NANOSLEEP, POLL, READ, CONTINUED = 35, 7, 0, 219
IP, SP = 0x7F12_3456_7002, 0x7FFF_0000_1000
ARGUMENTS = (0x10, 0x20, 0x30, 0x40)


def core(place: Path, number: int, ax: int = INTERRUPTED, machine: int = 1) -> Path:
    """The image of a thread that was dumped in a call, as images/core.proto and core-x86.proto have it."""
    registers = {4: 1, 8: ARGUMENTS[3], 11: ax, 13: ARGUMENTS[2], 14: ARGUMENTS[1], 15: ARGUMENTS[0]}
    registers |= {16: number, 17: IP, 20: SP}
    inner = b"".join(written(each, value) for each, value in registers.items())
    thread = written(1, 5) + written(2, inner)
    message = written(1, machine) + written(2 if machine == 1 else 6, thread) + written(3, b"x" * 30)
    path = place / "core-9.img"
    path.write_bytes(bytes(8) + len(message).to_bytes(4, "little") + message)
    return path


def registers(path: Path) -> dict[int, int]:
    (message,) = messages(path)
    thread = dict(fields(message))[2]
    assert isinstance(thread, bytes)
    found = dict(fields(thread))[2]
    assert isinstance(found, bytes)
    return {number: value for number, value in fields(found) if isinstance(value, int)}


@pytest.mark.parametrize("number", sorted(interrupted.CALLS))
def test_a_call_that_waits_is_made_again(tmp_path: Path, number: int) -> None:
    path = core(tmp_path, number)
    before, size = registers(path), path.stat().st_size
    assert Interrupted().call_again(tmp_path, []) == 1
    assert registers(path) == before | {11: number, 17: IP - 2}
    assert path.stat().st_size == size


@pytest.mark.parametrize(
    ("number", "ax"),
    [(READ, INTERRUPTED), (NANOSLEEP, 0), (NANOSLEEP, INTERRUPTED - 1), (2**64 - 1, INTERRUPTED)],
)
def test_any_other_stays_as_it_is(tmp_path: Path, number: int, ax: int) -> None:
    path = core(tmp_path, number, ax)
    before = path.read_bytes()
    assert Interrupted().call_again(tmp_path, []) == 0
    assert path.read_bytes() == before


def test_another_architecture_s_registers_are_left_alone(tmp_path: Path) -> None:
    path = core(tmp_path, NANOSLEEP, machine=4)
    before = path.read_bytes()
    assert Interrupted().call_again(tmp_path, []) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("known", [False, True])
def test_a_call_that_the_kernel_has_continued_needs_its_number_from_before(
    tmp_path: Path, *, known: bool
) -> None:
    path = core(tmp_path, CONTINUED)
    calls = Interrupted()
    if known:
        calls._noted[Call(SP, IP, ARGUMENTS)] = POLL
    assert calls.call_again(tmp_path, []) == known
    assert registers(path)[11] == (POLL if known else INTERRUPTED)


@pytest.mark.root
def test_a_waiting_thread_is_noted() -> None:
    with subprocess.Popen(["python3", "-c", "import time; time.sleep(100)"]) as sleeper:
        calls = Interrupted()
        until = time.monotonic() + 10
        while not calls._noted:
            assert time.monotonic() < until
            calls.note([sleeper.pid, os.getpid(), 1 << 22])
        sleeper.kill()
    assert set(calls._noted.values()) <= set(interrupted.WITH_REST)
    assert proc.threads(sleeper.pid) == []


def test_the_library_in_criu_has_the_same_list() -> None:
    source = (Path(interrupted.__file__).parent / "interposed.c").read_text()
    begin = source.index("static int waits(long number)")
    listed = source[begin : source.index("return 1;", begin)]
    assert {int(number) for number in re.findall(r"case (\d+):", listed)} == set(interrupted.CALLS)
