"""Room in the kernel's pipes: a post-copy source keeps a container's memory in them until it has been fetched.

With CAP_SYS_RESOURCE CRIU may make its pipes as large as it likes. Without it two settings of the kernel bind it
(pipe(7)); they are raised for the time of a migration and put back after the last.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import limits, locks

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = Path("/run/sealift/pipes.json")
SETTINGS = {"pipe-user-pages-soft": 0, "pipe-max-size": 1 << 30}
"""No bound on a user's pipes altogether, and a GiB for one pipe."""

FS = Path("/proc/sys/fs")


def make_room(migration: str) -> None:
    """Raise the settings for one migration, where this process may not ignore them."""
    if limits.capable():
        return
    with _record() as record:
        if not record["migrations"]:
            now = {name: int((FS / name).read_text()) for name in SETTINGS}
            # Hosts of a lab share a kernel: what is raised already, another host has raised, and will put back.
            record["before"] = {name: value for name, value in now.items() if value != SETTINGS[name]}
        record["migrations"] = sorted({*record["migrations"], migration})
        for name, value in SETTINGS.items():
            (FS / name).write_text(str(value))


def put_back(migration: str) -> None:
    """One migration needs them no longer."""
    if not RECORD.exists():
        return
    with _record() as record:
        record["migrations"] = [other for other in record["migrations"] if other != migration]
        if not record["migrations"]:
            for name, value in record["before"].items():
                with contextlib.suppress(OSError):
                    (FS / name).write_text(str(value))
            RECORD.unlink()


@contextlib.contextmanager
def _record() -> Iterator[dict[str, Any]]:
    with locks.alone(RECORD.parent):
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {"migrations": [], "before": {}}
        RECORD.touch()
        yield record
        if RECORD.exists():
            RECORD.write_text(json.dumps(record))
