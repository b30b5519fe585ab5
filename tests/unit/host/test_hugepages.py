"""Huge pages are found and split, so that the kernel tells apart which of their pages were written to."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from sealift.host.agent import hugepages

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SIZE = 16 << 20


@pytest.fixture
def huge() -> mmap.mmap:
    """Memory of this process, in huge pages."""
    if not ENABLED.exists() or "[never]" in ENABLED.read_text():
        pytest.skip("this kernel makes no huge pages")
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for page in range(0, SIZE, mmap.PAGESIZE):
        memory[page : page + 8] = page.to_bytes(8, "little")
    if not list(hugepages.ranges(os.getpid())):
        pytest.skip("the kernel has no huge page free")
    return memory


@pytest.mark.root
def test_they_are_split_and_hold_what_they_held(huge: mmap.mmap) -> None:
    assert hugepages.split([os.getpid()]) is None
    assert not list(hugepages.ranges(os.getpid()))
    for page in range(0, SIZE, mmap.PAGESIZE):
        assert huge[page : page + 8] == page.to_bytes(8, "little")


def test_a_process_that_has_ended_has_none() -> None:
    assert hugepages.split([1 << 22]) is None


def test_what_stands_in_the_way_is_said(huge: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugepages, "PROCESS_MADVISE", 1 << 20)  # as before Linux 5.10
    assert hugepages.split([os.getpid()]) == "process_madvise: Function not implemented"
    assert list(hugepages.ranges(os.getpid()))
