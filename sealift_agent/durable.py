"""Files that outlive a loss of power: what is written here is on the disk when the call returns."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def folder(path: Path) -> None:
    """Make a directory and all above it, each with its entry on the disk."""
    if path.is_dir():
        return
    folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def replace(file: Path, text: str, fresh: Path | None = None) -> None:
    """Put `text` in the place of what a file holds. It is written to `fresh` first: by default, a name in ".new".

    OSError may mean either: that nothing has changed, or that it has and a loss of power may undo it. Who has to know
    reads the file again, and calls `sync` before it relies on what it finds.
    """
    fresh = fresh or file.with_suffix(".new")
    with fresh.open("w") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    fresh.rename(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """fsync(2) of a file or a directory: of what it holds, or of which names it has."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
