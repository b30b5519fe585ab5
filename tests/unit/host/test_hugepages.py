"""Huge pages are found and split, so that the kernel tells apart which of their pages were written to."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from sealift.host.agent.memory import hugepages

MADV_COLLAPSE = 25
"""madvise(2), since Linux 6.1: huge pages at once, whatever the settings say, or an error."""

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
