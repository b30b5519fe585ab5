"""Which files of a container its processes have open or mapped: what is written to them may go untold."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .. import proc
from .changes import NotTold
from .paths import host_paths, mounts

if TYPE_CHECKING:
    from collections.abc import Sequence

LOST = " (deleted)"


def is_lost(target: str, opened: os.stat_result) -> bool:
    """Whether an open file's name is gone though the file has one; `target` is what /proc/PID/fd says."""
    return target.endswith(LOST) and opened.st_nlink > 0 and not stat.S_ISDIR(opened.st_mode)


def holds_lost(pid: int) -> bool:
    """Whether a process has a file open whose name is gone."""
    for handle in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            target = str(handle.readlink())
            if target.endswith(LOST) and is_lost(target, handle.stat()):
                return True
    return False


def written_through_mappings(processes: Sequence[int]) -> set[str]:
    """Host paths of files that any of the processes has mapped shared and writable."""
    found: set[str] = set()
    for pid in processes:
        points = mounts(pid)
        for line in proc.lines(pid, "maps") if points else []:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[1][1] == "w" and fields[1][3] == "s" and fields[5].startswith("/"):
                found |= host_paths(fields[5], points)
    return found


def open_and_changed(processes: Sequence[int], since_ns: int) -> set[str]:
    """Host paths of files that are open and were changed since then. NotTold if one has lost its name."""
    found: set[str] = set()
    for pid in processes:
        points: dict[str, set[str]] = {}
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    seen = entry.stat()
                    if seen.st_ctime_ns < since_ns or not stat.S_ISREG(seen.st_mode) or not seen.st_nlink:
                        continue
                    target = str(Path(entry.path).readlink())
                    if target.endswith(LOST):
                        raise NotTold("a file has changed that has lost its name")
                    points = points or mounts(pid)
                    found |= host_paths(target, points) if points else set()
    return found
