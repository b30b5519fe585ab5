"""An rsync for tests: this machine's, or the one that a lab's hosts have."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from sealift.paths import cache_dir

if TYPE_CHECKING:
    from pathlib import Path

LABS = sorted((cache_dir() / "trees").glob("*/usr/bin/rsync"))
THE_LABS = """#!/bin/sh
exec "$0.root/lib64/ld-linux-x86-64.so.2" --library-path "$0.root/usr/lib/x86_64-linux-gnu" "$0.root/usr/bin/rsync" "$@"
"""
NEEDED = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="rsync's daemon needs root"),
    pytest.mark.skipif(
        not (shutil.which("rsync") or LABS), reason="there is no rsync, and no lab's tree with one"
    ),
]


def provide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `rsync` found for the length of a test."""
    if shutil.which("rsync") is None:
        programs = tmp_path / "programs"
        programs.mkdir()
        (programs / "rsync").write_text(THE_LABS)
        (programs / "rsync").chmod(0o755)
        (programs / "rsync.root").symlink_to(LABS[0].parents[2])
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
