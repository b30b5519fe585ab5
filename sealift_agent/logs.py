"""What is left of a failed migration for whoever looks for the reason: the logs of CRIU and of its helpers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST_BYTES = 1 << 18
"""Of each log, its end. The error stands there."""

MOST = 40
"""Logs: a round of pre-dump has one."""


def read(directories: Iterable[Path]) -> dict[str, str]:
    """The ends of all logs in these directories, by their paths there. One that goes meanwhile is left out."""
    found: dict[str, str] = {}
    for directory in directories:
        for path in sorted([*directory.rglob("*.log"), *directory.rglob("complaints")]):
            with contextlib.suppress(OSError), path.open("rb") as log:
                size = log.seek(0, 2)
                log.seek(max(0, size - MOST_BYTES))
                if (said := log.read(MOST_BYTES)) and len(found) < MOST:
                    found[str(path.relative_to(directory)).replace("/", "-")] = said.decode(
                        "utf-8", "replace"
                    )
    return found
