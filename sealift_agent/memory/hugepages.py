"""Split huge pages before rounds, and make huge pages before a post-copy.

Before rounds huge pages are split. The kernel has one soft-dirty mark for a whole transparent huge page (in its PMD).
So one written byte makes 2 MiB dirty, and rounds don't get smaller if a process writes single pages here and there.
With 2 MB/s written all over 100 MB, every round and the freeze sent everything. The kernel splits a huge page if a part
of it is declared cold (MADV_COLD; mm/madvise.c, madvise_cold_or_pageout_pte_range). The page that is declared cold
stays in memory. khugepaged makes huge pages again later.

Before a post-copy small pages are collapsed to huge pages. In the freeze the kernel walks all memory for CRIU three
times, page by page (smaps, PAGEMAP_SCAN, vmsplice). The final dump of 1 GB took 57 ms longer than that of 100 MB
(benchmarks/results/peers.parquet). With huge pages the difference is 27 ms (post-copy.parquet).
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
from . import present

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROCESS_MADVISE = 440
MADV_COLD, MADV_COLLAPSE = 20, 25
"""The number of process_madvise(2), the same on all architectures. Only glibc 2.36 and later have the function."""

HUGE_BYTES = 2 << 20
AT_ONCE = 512
"""Ranges in one call. The kernel accepts 1024."""

SLOW_S, LONGEST_S = 0.2, 20.0
"""Bounds in seconds: for one huge page, which takes long if the kernel has to search for free memory, and for all."""

MOST_REFUSED = 16
"""After so many refusals of the kernel a process is left alone."""

ENTRY = struct.Struct("<Q")
IS_PRESENT, IS_FILE, IS_EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
"""Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)."""

_OWN = int.from_bytes(ENTRY.pack(IS_PRESENT | IS_EXCLUSIVE) * (HUGE_BYTES // PAGE_BYTES), "little")
_ASKED = int.from_bytes(
    ENTRY.pack(IS_PRESENT | IS_EXCLUSIVE | IS_FILE) * (HUGE_BYTES // PAGE_BYTES), "little"
)

USE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ANONYMOUS = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .w.p \S+ 00:00 0 ")
RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")
HUGE = re.compile(r"^AnonHugePages: +(\d+) kB")


def split(pids: Iterable[int]) -> str | None:
    """Split the huge pages of these processes. Returns the kernel's reason if it refuses."""
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
    """Collapse the pages of these processes to huge pages. Returns the bytes in new huge pages.

    A huge page is made only if all of its pages exist in one process alone, so that neither the process nor the
    transfer grows. None is made if the host's owner or the process has forbidden it (prctl(2), PR_SET_THP_DISABLE), or
    if the kernel finds no free memory for it, or not fast enough.
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
                # The process can't change its mappings during a collapse, so it gets the same time in between.
                time.sleep(took_s)
    return gathered


def _whole(pid: int) -> Iterator[int]:
    """Addresses at which 512 consecutive pages exist, in one process alone, and could be one huge page."""
    lines = proc.lines(pid, "maps")
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for mapping in filter(None, map(ANONYMOUS.match, lines)):
            for start, end in present.ranges(pagemap.fileno(), int(mapping[1], 16), int(mapping[2], 16)):
                for place in _huge_pages(start, end):
                    size, offset = HUGE_BYTES // PAGE_BYTES * ENTRY.size, place // PAGE_BYTES * ENTRY.size
                    entries = os.pread(pagemap.fileno(), size, offset)
                    if int.from_bytes(entries, "little") & _ASKED == _OWN:
                        yield place


def _huge_pages(start: int, end: int) -> range:
    """Addresses at which huge pages may begin in a mapping."""
    return range(-(-start // HUGE_BYTES) * HUGE_BYTES, end - HUGE_BYTES + 1, HUGE_BYTES)


def _collapse(pid: int, place: int) -> bool:
    """Collapse the pages of one huge page. Returns whether it was done. ProcessLookupError if the process has ended."""
    try:
        return _advise(pid, [place], HUGE_BYTES, MADV_COLLAPSE) == HUGE_BYTES
    except ProcessLookupError:
        raise
    except OSError:
        return False


def _call_cold(pid: int, places: list[int]) -> str | None:
    """Declare a page at each of these addresses cold. Returns the kernel's reason if it refuses."""
    try:
        for first in range(0, len(places), AT_ONCE):
            _advise(pid, places[first : first + AT_ONCE], PAGE_BYTES, MADV_COLD)
    except ProcessLookupError:
        raise
    except OSError as refused:
        return f"process_madvise: {refused.strerror}"
    return None


def _advise(pid: int, places: list[int], size: int, advice: int) -> int:
    """Call process_madvise(2) for `size` bytes at each place. Returns the bytes for which it was done.

    OSError if for none.
    """
    process = os.pidfd_open(pid)
    try:
        vector = b"".join(struct.pack("=QQ", place, size) for place in places)
        return libc.system_call(PROCESS_MADVISE, process, vector, len(places), advice, 0)
    finally:
        os.close(process)
