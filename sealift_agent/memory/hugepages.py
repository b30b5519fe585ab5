"""Huge pages are in the way of rounds, and help a post-copy.

Before rounds they are split. What was written to a transparent huge page the kernel notes for the whole of it
(soft-dirty, in its PMD): one byte makes 2 MiB dirty, and a writer that touches a page here and there keeps rounds from
getting smaller. Of 100 MB with 2 MB/s written all over them each round sent everything, and so did the freeze. The
kernel splits a huge page of which it is told that a part is cold (MADV_COLD; mm/madvise.c,
madvise_cold_or_pageout_pte_range). The one page that is called cold for it stays where it is. khugepaged puts them
together again in its time.

Before a post-copy small pages are put together. In the freeze CRIU has the kernel walk all memory page by page three
times (smaps, PAGEMAP_SCAN, vmsplice). The final dump of 1 GB took 57 ms longer than that of 100 MB
(benchmarks/results/peers.parquet); where 512 pages are one, 27 ms are left of it (post-copy.parquet).
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import libc, proc
from ..constants import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROCESS_MADVISE = 440
MADV_COLD, MADV_COLLAPSE = 20, 25
"""process_madvise(2), by its number, which all architectures share: glibc 2.36 is the first to have it."""

HUGE_BYTES = 2 << 20
AT_ONCE = 512
"""Ranges in one call; the kernel takes 1024."""

SLOW_S, LONGEST_S = 0.2, 20.0
"""How long one huge page takes to be put together where the kernel has to search for room, and how long all may."""

MOST_REFUSED = 16
"""A process of which the kernel refuses so many is left alone."""

ENTRY = struct.Struct("<Q")
IS_PRESENT, IS_FILE, IS_EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
"""What /proc/PID/pagemap says of a page (Documentation/admin-guide/mm/pagemap.rst)."""

_OWN = int.from_bytes(ENTRY.pack(IS_PRESENT | IS_EXCLUSIVE) * (HUGE_BYTES // PAGE_BYTES), "little")
_ASKED = int.from_bytes(
    ENTRY.pack(IS_PRESENT | IS_EXCLUSIVE | IS_FILE) * (HUGE_BYTES // PAGE_BYTES), "little"
)

USE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ANONYMOUS = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ...p \S+ 00:00 0 ")
RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")
HUGE = re.compile(r"^AnonHugePages: +(\d+) kB")


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
    where = None
    for line in proc.lines(pid, "smaps"):
        if head := RANGE.match(line):
            where = int(head[1], 16), int(head[2], 16)
        elif (found := HUGE.match(line)) and int(found[1]) and where:
            yield where


def gather(pids: Iterable[int]) -> int:
    """Put the pages of these processes together. Returns how many bytes are in huge pages for it.

    Not where a part of a huge page would have to be made up, or is shared with another process: neither its memory nor
    what has to be sent grows. Nor where the host's owner wants no huge pages, or the process (prctl(2),
    PR_SET_THP_DISABLE), or where the kernel finds no room for them, or not fast.
    """
    gathered = 0
    if not USE.exists() or "[never]" in USE.read_text():
        return gathered
    deadline = time.monotonic() + LONGEST_S
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended
            refused = 0
            for place in _whole(pid):
                began = time.monotonic()
                if _collapse(pid, place):
                    gathered += HUGE_BYTES
                elif (refused := refused + 1) == MOST_REFUSED:
                    break
                took_s = time.monotonic() - began
                if took_s > SLOW_S or began > deadline:
                    return gathered
                # The process can't change its mappings while one is put together: it gets its turn in between.
                time.sleep(took_s)
    return gathered


def _whole(pid: int) -> Iterator[int]:
    """Where 512 pages in a row are there, in one process alone, and could be one."""
    lines = proc.lines(pid, "maps")
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for mapping in filter(None, map(ANONYMOUS.match, lines)):
            for place in _huge_pages(int(mapping[1], 16), int(mapping[2], 16)):
                entries = os.pread(
                    pagemap.fileno(), HUGE_BYTES // PAGE_BYTES * ENTRY.size, place // PAGE_BYTES * ENTRY.size
                )
                if int.from_bytes(entries, "little") & _ASKED == _OWN:
                    yield place


def _huge_pages(start: int, end: int) -> range:
    """Where huge pages may begin in a mapping."""
    return range(-(-start // HUGE_BYTES) * HUGE_BYTES, end - HUGE_BYTES + 1, HUGE_BYTES)


def _collapse(pid: int, place: int) -> bool:
    """Whether the kernel puts the pages of a huge page together. ProcessLookupError if the process has ended."""
    try:
        return _advise(pid, [place], HUGE_BYTES, MADV_COLLAPSE) == HUGE_BYTES
    except ProcessLookupError:
        raise
    except OSError:
        return False


def _call_cold(pid: int, places: list[int]) -> str | None:
    """Say of a page at each of these addresses that it is cold. Returns why the kernel refuses that, if it does."""
    try:
        for first in range(0, len(places), AT_ONCE):
            _advise(pid, places[first : first + AT_ONCE], PAGE_BYTES, MADV_COLD)
    except ProcessLookupError:
        raise
    except OSError as refused:
        return f"process_madvise: {refused.strerror}"
    return None


def _advise(pid: int, places: list[int], size: int, advice: int) -> int:
    """process_madvise(2) of so many bytes at each place. Returns for how many it was done. OSError if for none."""
    process = os.pidfd_open(pid)
    try:
        vector = b"".join(struct.pack("=QQ", place, size) for place in places)
        return libc.system_call(PROCESS_MADVISE, process, vector, len(places), advice, 0)
    finally:
        os.close(process)
