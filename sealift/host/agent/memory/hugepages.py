"""Splits a container's huge pages before its memory goes ahead in rounds.

What was written to a transparent huge page the kernel notes for the whole of it (soft-dirty, in its PMD): one byte
makes 2 MiB dirty, and a writer that touches a page here and there keeps rounds from getting smaller. Of 100 MB with
2 MB/s written all over them each round sent everything, and so did the freeze. Split, its pages are told apart;
khugepaged puts them together again in its time.

The kernel splits a huge page of which it is told that a part is cold (MADV_COLD; mm/madvise.c,
madvise_cold_or_pageout_pte_range). The one page that is called cold for it stays where it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from ..images import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROCESS_MADVISE = 440
MADV_COLD = 20
"""process_madvise(2), by its number, which all architectures share: glibc 2.36 is the first to have it."""

HUGE_BYTES = 2 << 20
AT_ONCE = 512
"""Ranges in one call; the kernel takes 1024."""

RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")
HUGE = re.compile(r"^AnonHugePages: +(\d+) kB")

_libc = ctypes.CDLL(None, use_errno=True)


def split(pids: Iterable[int]) -> str | None:
    """Split the huge pages of these processes. Returns what stands in the way, if anything does."""
    refused = None
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            huge = [place for start, end in ranges(pid) for place in _huge_pages(start, end)]
            if huge:
                refused = _call_cold(pid, huge) or refused
    return refused


def ranges(pid: int) -> Iterator[tuple[int, int]]:
    """The mappings of a process that have huge pages in them (proc(5), smaps)."""
    with contextlib.suppress(FileNotFoundError):  # it has ended
        where = None
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if head := RANGE.match(line):
                where = int(head[1], 16), int(head[2], 16)
            elif (found := HUGE.match(line)) and int(found[1]) and where:
                yield where


def _huge_pages(start: int, end: int) -> range:
    """Where huge pages may begin in a mapping."""
    return range(-(-start // HUGE_BYTES) * HUGE_BYTES, end - HUGE_BYTES + 1, HUGE_BYTES)


def _call_cold(pid: int, places: list[int]) -> str | None:
    """Say of a page at each of these addresses that it is cold."""
    process = os.pidfd_open(pid)
    try:
        for first in range(0, len(places), AT_ONCE):
            batch = places[first : first + AT_ONCE]
            vector = b"".join(struct.pack("=QQ", place, PAGE_BYTES) for place in batch)
            if _libc.syscall(PROCESS_MADVISE, process, vector, len(batch), MADV_COLD, 0) < 0:
                return f"process_madvise: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(process)
    return None
