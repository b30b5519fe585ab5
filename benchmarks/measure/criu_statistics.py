"""CRIU's own statistics of a dump and a restore, read out of an image directory on a host."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sealift_agent.constants import PAGE_BYTES
from sealift_agent.images import dump_stats, restore_stats

if TYPE_CHECKING:
    from sealift.host.ssh import Connection

FILES = ("stats-dump", "stats-restore")


@dataclass(frozen=True)
class Statistics:
    """Milliseconds and bytes; 0 where CRIU has left none."""

    dump_ms: float
    """How long the processes were frozen for the dump."""

    restore_ms: float
    pages_bytes: int


def read_statistics(host: Connection, images: str) -> Statistics:
    """Both files of an image directory, whichever is there."""
    with tempfile.TemporaryDirectory(prefix="sealift-stats-") as folder:
        for name in FILES:
            done = host.run(["base64", f"{images}/{name}"], check=False)
            if done.status == 0:
                (Path(folder) / name).write_bytes(base64.b64decode(done.stdout))
        dumped, restored = dump_stats(Path(folder)), restore_stats(Path(folder))
    return Statistics(
        dumped.get("frozen_us", 0) / 1000,
        (restored.get("forking_us", 0) + restored.get("restore_us", 0)) / 1000,
        dumped.get("pages_written", 0) * PAGE_BYTES,
    )
