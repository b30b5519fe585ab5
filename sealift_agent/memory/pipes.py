"""Larger limits for pipes: a post-copy source keeps a container's memory in pipes until it has been fetched.

With CAP_SYS_RESOURCE CRIU may make its pipes as large as it needs. Without it two settings of the kernel limit them
(pipe(7)). They are raised during migrations and set back after the last one.
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
"""No limit for all pipes of a user together, and 1 GiB for one pipe."""

FS = Path("/proc/sys/fs")


def raise_limits(migration: str) -> None:
    """Raise the settings for one migration, if they limit this process."""
    if limits.capable():
        return
    with _record() as record:
        if not record["migrations"]:
            now = {name: int((FS / name).read_text()) for name in SETTINGS}
            # Hosts of a lab share a kernel. A setting that is raised already is set back by the host that raised it.
            record["before"] = {name: value for name, value in now.items() if value != SETTINGS[name]}
        record["migrations"] = sorted({*record["migrations"], migration})
        for name, value in SETTINGS.items():
            (FS / name).write_text(str(value))


def put_back(migration: str) -> None:
    """Set them back if no other migration needs them."""
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
