"""How things get into the cache: by one builder at a time, whole or not at all, nothing left when killed."""

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
    """Hold a cache folder alone, waiting for whoever holds it; what a killed builder left in it is removed.

    A builder works in `folder`/NAME.building and renames the result when it is whole. It makes its mounts by
    `contained` only, so that removing leftovers never meets one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "lock", lambda: say(f"somebody else is building in {folder}; waiting for it")):
        for leftover in folder.glob(LEFTOVERS):
            remove_folder(leftover)
        yield


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours. Raises SealiftError where something is mounted below it: that is not ours."""
    below = os.fsencode(f"{folder.resolve()}/")
    for line in MOUNTS.read_bytes().split(b"\n")[:-1]:
        # Fifth field: where it is mounted, with blanks and such as octal numbers (proc_pid_mountinfo(5)).
        point = ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4])
        if (point + b"/").startswith(below):
            place = os.fsdecode(point)
            raise SealiftError(
                f"{place} is mounted below {folder}, which is to be removed", remedy="Unmount it"
            )
    shutil.rmtree(folder)


def contained(*, network: bool = True) -> list[str]:
    """Words before a command whose mounts and processes end with it and with us, even when we are killed.

    With `network` off it has no network either.
    """
    namespaces = ["--mount", "--pid", "--mount-proc", "--kill-child"]
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, *([] if network else ["--net"])]
