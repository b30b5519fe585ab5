"""Builds into the cache: one builder at a time, atomically, without remains after a kill."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.errors import SealiftError
from sealift.locks import alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOUNTS = Path("/proc/self/mountinfo")
ESCAPED = re.compile(rb"\\([0-7]{3})")
LEFTOVERS = "*.building"


@contextmanager
def only_builder(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Lock a cache folder, after waiting for another builder. Remains of a killed builder are removed.

    A builder works in `folder`/NAME.building and renames the complete result. It makes mounts only through `contained`,
    so remains never contain a mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "lock", lambda: say(f"another program is building in {folder}; waiting for it")):
        for leftover in folder.glob(LEFTOVERS):
            remove_folder(leftover)
        yield


def remove_folder(folder: Path) -> None:
    """Remove a folder of the cache. Raises SealiftError if something is mounted below it, which is not the cache's."""
    below = os.fsencode(f"{folder.resolve()}/")
    for line in MOUNTS.read_bytes().split(b"\n")[:-1]:
        # The fifth field is the mount point; blanks and other characters are octal numbers (proc_pid_mountinfo(5)).
        point = ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4])
        if (point + b"/").startswith(below):
            place = os.fsdecode(point)
            raise SealiftError(
                f"{place} is mounted below {folder}, which is to be removed", remedy="Unmount it"
            )
    shutil.rmtree(folder)


def contained(*, network: bool = True) -> list[str]:
    """A command prefix: the command's mounts and processes end with it and with this process, even after a kill.

    Without `network` the command has no network.
    """
    namespaces = ["--mount", "--pid", "--mount-proc", "--kill-child"]
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, *([] if network else ["--net"])]
