"""How fast a container's processes dirty their memory. It is sampled while they run.

Where the kernel tracks dirty pages (soft-dirty bits), they are counted. Elsewhere all pages that were touched, read or
written, are an upper bound: `Referenced` after clear_refs (proc(5)).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import cgroup, docker_api, dumps, proc
from ..constants import PAGE_BYTES
from ..protocol import DirtyPoint, MemorySample
from . import present

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENTS_S = (0.2, 0.6)
"""Seconds from clearing the marks to counting the dirty pages. Two counts tell a small working set from a process
that writes all of its memory."""

REFERENCED, SOFT_DIRTY = "1", "4"  # what is written to clear_refs
ENTRY_BYTES = 8
CHUNK_PAGES = 1 << 20
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s*(.*)$")


def sample(container: str, tracked: bool) -> MemorySample:
    """The dirty bytes after each of `MOMENTS_S`, and the method that found them.

    During a pre-dump nothing is sampled, since the pre-dump needs the soft-dirty bits, which sampling clears.
    """
    pid = docker_api.call("GET", f"/containers/{container}/json")["State"]["Pid"]
    pids = cgroup.pids(cgroup.of_process(pid))
    whole = sum(map(dump_bytes, pids))
    if tracked and _is_being_pre_dumped(container):
        return MemorySample(whole, "", [])
    if not all(_clear(each, SOFT_DIRTY if tracked else REFERENCED) for each in pids):
        return MemorySample(whole, "", [])
    points = []
    started = time.monotonic()
    for moment in MOMENTS_S:
        time.sleep(max(0.0, started + moment - time.monotonic()))
        after = time.monotonic() - started
        count = _soft_dirty_bytes if tracked else _referenced_bytes
        points.append(DirtyPoint(after, min(sum(map(count, pids)), whole)))
    return MemorySample(whole, "soft-dirty" if tracked else "referenced", points)


def dump_bytes(pid: int) -> int:
    """The bytes that a dump of the process has: memory that is in no file on disk.

    Shared pages are counted in parts.
    """
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", proc.read(pid, "smaps_rollup"), re.MULTILINE))
    return sum(int(sizes.get(name, 0)) for name in ("Pss_Anon", "Pss_Shmem", "SwapPss")) * 1024


def _is_being_pre_dumped(container: str) -> bool:
    """Whether a migration has images of the container here. Its next round needs the soft-dirty bits."""
    with contextlib.suppress(FileNotFoundError):  # another migration has just ended
        return any(path.read_text() == container for path in dumps.DUMPS.glob(f"*/{dumps.CONTAINER}"))
    return False


def _clear(pid: int, what: str) -> bool:
    try:
        Path(f"/proc/{pid}/clear_refs").write_text(what)
    except ProcessLookupError:
        return True  # it has ended
    except OSError:
        return False
    return True


def _dumped(pid: int) -> Iterator[tuple[int, int]]:
    """The mappings that a dump reads: they are writable and not of a file."""
    with contextlib.suppress(OSError):
        for line in proc.lines(pid, "maps"):
            found = MAPPING.match(line)
            if found and found[3][1] == "w" and not (found[3][3] == "s" and found[4].startswith("/dev/")):
                yield int(found[1], 16), int(found[2], 16)


def _soft_dirty_bytes(pid: int) -> int:
    """Pages with bit 55 that are present or swapped (bits 63, 62 of /proc/PID/pagemap)."""
    total = 0
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as table:
        for start, end in (part for whole in _dumped(pid) for part in present.ranges(table.fileno(), *whole)):
            for page in range(start // PAGE_BYTES, end // PAGE_BYTES, CHUNK_PAGES):
                pages = min(CHUNK_PAGES, end // PAGE_BYTES - page)
                total += _count(os.pread(table.fileno(), pages * ENTRY_BYTES, page * ENTRY_BYTES))
    return total * PAGE_BYTES


def _count(entries: bytes) -> int:
    """How many entries (64 bits, low byte first) are soft-dirty and present. Columns of bytes are counted at once."""
    dirty = int.from_bytes(entries[6::8], "little")
    there = int.from_bytes(entries[7::8], "little")
    mask = int.from_bytes(b"\x80" * (len(entries) // ENTRY_BYTES), "little")
    return bin(dirty & (there | there << 1) & mask).count("1")


def _referenced_bytes(pid: int) -> int:
    total = 0
    writable = False
    with contextlib.suppress(OSError):
        for line in proc.lines(pid, "smaps"):
            if found := MAPPING.match(line):
                writable = found[3][1] == "w"
            elif writable and line.startswith("Referenced:"):
                total += int(line.split()[1]) * 1024
    return total
