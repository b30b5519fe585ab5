"""Huge pages are split where single pages count, and put together where they are in the way."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent.memory import hugepages

if TYPE_CHECKING:
    from collections.abc import Iterator

MADV_COLLAPSE = 25
"""madvise(2), since Linux 6.1: huge pages at once, whatever the settings say, or an error."""

PR_SET_THP_DISABLE = 41
"""prctl(2): no huge pages for this process."""

SIZE = 16 << 20


def huge_kb() -> int:
    """How much of this process the kernel says is in huge pages."""
    (line,) = (
        one for one in Path("/proc/self/smaps_rollup").read_text().splitlines() if "AnonHugePages" in one
    )
    return int(line.split()[1])


@pytest.fixture
def huge() -> mmap.mmap:
    """Memory of this process, in huge pages."""
    before = huge_kb()
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, SIZE, mmap.PAGESIZE):
        memory[page : page + 8] = page.to_bytes(8, "little")
    memory.madvise(MADV_COLLAPSE)
    assert huge_kb() > before
    return memory


@pytest.mark.root
def test_they_are_split_and_hold_what_they_held(huge: mmap.mmap) -> None:
    joined = huge_kb()
    assert list(hugepages.ranges(os.getpid()))
    assert hugepages.split([os.getpid()]) is None
    assert not list(hugepages.ranges(os.getpid()))
    assert joined - huge_kb() >= (SIZE - hugepages.HUGE_BYTES) >> 10, "all that lay wholly in the mapping"
    for page in range(0, SIZE, mmap.PAGESIZE):
        assert huge[page : page + 8] == page.to_bytes(8, "little")


def test_a_process_that_has_ended_has_none() -> None:
    assert hugepages.split([1 << 22]) is None


def test_what_stands_in_the_way_is_said(huge: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugepages, "PROCESS_MADVISE", 1 << 20)  # as before Linux 5.10
    assert hugepages.split([os.getpid()]) == "process_madvise: Function not implemented"
    assert list(hugepages.ranges(os.getpid()))


PROGRAM = """
import ctypes, mmap, os, sys
memory = mmap.mmap(-1, {size}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, {size}, mmap.PAGESIZE * {step}):
    memory[page : page + 8] = page.to_bytes(8, "little")
memory.madvise(mmap.MADV_HUGEPAGE)
{then}
print("ready", flush=True)
sys.stdin.readline()
print(all(memory[page : page + 8] == page.to_bytes(8, "little") for page in range(0, {size}, mmap.PAGESIZE * {step})))
"""
"""Has small pages, all of them or every so many, and does something before it waits."""

SHARES = """
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
"""
WANTS_NONE = f"ctypes.CDLL(None).prctl({PR_SET_THP_DISABLE}, 1, 0, 0, 0)"


@contextlib.contextmanager
def running(step: int = 1, then: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process with small pages. Leaving checks that they hold what they held."""
    program = PROGRAM.format(size=SIZE, step=step, then=then)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout.read() == "True\n"


def resident_kb(pid: int) -> tuple[int, int]:
    """How much memory a process has, and how much of it in huge pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return int(found["Rss"]), int(found["AnonHugePages"])


@pytest.mark.root
def test_small_pages_are_put_together_and_hold_what_they_held() -> None:
    with running() as process:
        before, _ = resident_kb(process.pid)
        gathered = hugepages.gather([process.pid])
        after, huge = resident_kb(process.pid)
    assert gathered >= SIZE - hugepages.HUGE_BYTES
    assert huge == gathered >> 10
    assert after - before < hugepages.HUGE_BYTES >> 10, "nothing was made up"


@pytest.mark.root
@pytest.mark.parametrize(
    "kept_small",
    [
        pytest.param({"step": 2}, id="with-holes"),
        pytest.param({"then": SHARES}, id="shared"),
        pytest.param({"then": WANTS_NONE}, id="wants-none"),
    ],
)
def test_pages_stay_small(kept_small: dict[str, Any]) -> None:
    with running(**kept_small) as process:
        before = resident_kb(process.pid)
        assert hugepages.gather([process.pid]) < hugepages.HUGE_BYTES * 2, "the interpreter's own, at most"
        after = resident_kb(process.pid)
    assert after[0] - before[0] < 4 * hugepages.HUGE_BYTES >> 10


@pytest.mark.root
def test_a_host_that_wants_none_gets_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    monkeypatch.setattr(hugepages, "USE", tmp_path / "enabled")
    with running() as process:
        assert hugepages.gather([process.pid]) == 0


@pytest.mark.root
def test_a_kernel_that_is_slow_is_not_asked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugepages, "SLOW_S", 0.0)
    with running() as process:
        assert hugepages.gather([process.pid]) == hugepages.HUGE_BYTES


def test_a_process_that_has_ended_has_none_to_gather() -> None:
    assert hugepages.gather([1 << 22]) == 0
