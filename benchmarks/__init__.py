"""Workloads with clients that watch them, what moves them, and what is measured with both.

In a notebook: `import benchmarks as bench; rows = bench.load("results/quick")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def load(*paths: Path | str) -> pd.DataFrame:
    """All rows of result files and folders (`benchmarks.frames.COLUMNS` says what is in them).

    Without a path, of `./results`. UnusableInput names a file that is none.
    """
    from benchmarks import frames  # noqa: PLC0415 - pandas takes half a second, and `sealift --help` passes here

    return frames.load(*paths)
