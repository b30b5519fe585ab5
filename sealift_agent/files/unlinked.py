"""Files that processes have open or mapped, and that have no name any more: a dump takes their content along.

What never was in a file system of the container has its content in other images: memfd, shared memory without a file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .. import proc
from ..messages import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOST = " (deleted)"
MEMORY = ("/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage")
"""How the kernel calls memory without a file (mm/memfd.c, mm/shmem.c, ipc/shm.c, mm/mmap.c)."""

BLOCK_BYTES = 512
"""Of `st_blocks` (stat(2)). CRIU compares these blocks with its limit, so that holes count nothing."""


def find(names: Mapping[int, str]) -> dict[str, int]:
    """The files of these processes, each as "path (holder)", and how many bytes each has on disk or in memory.

    `names` maps process ids to how they are called.
    """
    found: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    for pid, name in names.items():
        for handle in _handles(pid):
            with contextlib.suppress(OSError):
                opened, target = handle.stat(), str(handle.readlink())
                if not stat.S_ISREG(opened.st_mode) or opened.st_nlink or target.startswith(MEMORY):
                    continue
                if (opened.st_dev, opened.st_ino) not in seen:
                    seen.add((opened.st_dev, opened.st_ino))
                    path = printable(target.removesuffix(LOST))
                    said = f"{path} ({name})"
                    found[said] = found.get(said, 0) + opened.st_blocks * BLOCK_BYTES
    return found


def _handles(pid: int) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            yield Path(entry.path)
    with contextlib.suppress(OSError):
        for mapping in proc.mappings(pid):
            if mapping.inode:
                yield Path(f"/proc/{pid}/map_files/{mapping.place}")
