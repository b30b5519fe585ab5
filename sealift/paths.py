"""Where Sealift keeps things on the machine that it runs on."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """What can be made anew: trees, disks, images, certificates. `SEALIFT_CACHE` moves it."""
    if chosen := os.environ.get("SEALIFT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sealift"


def run_dir() -> Path:
    """What lives as long as a lab or a migration does; empty when neither does. `SEALIFT_RUN` moves it."""
    return Path(os.environ.get("SEALIFT_RUN") or "/run/sealift")


def inventories_dir() -> Path:
    """Where the inventories are that a Prefect worker may use. `SEALIFT_INVENTORIES` in its environment moves it."""
    return Path(os.environ.get("SEALIFT_INVENTORIES") or "/etc/sealift")


def state_dir() -> Path:
    """What must outlive both: records of evidence, disk keys. `SEALIFT_STATE` moves it."""
    if chosen := os.environ.get("SEALIFT_STATE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "sealift"
