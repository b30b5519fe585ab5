"""The page of the table, and the table on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.compat.matrix import wrong
from benchmarks.compat.programs import PROGRAMS
from benchmarks.compat.row import MOVED, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADS = ("program", "strategy", "Docker", "result", "`check`", "predicted", "frozen", "longest gap")


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, lines and notes for a terminal."""
    notes = [f"{row.key}: {wrong(row)}" for row in rows if wrong(row)]
    return list(HEADS), [_line(row) for row in rows], notes


def _line(row: Row) -> list[str]:
    return [
        row.program,
        row.strategy,
        row.docker,
        row.outcome,
        row.check,
        _worst(row.predicted_ms),
        _worst(row.frozen_ms),
        f"{row.longest_gap_ms:.0f} ms" if row.longest_gap_ms else "",
    ]


def _worst(figures: Sequence[float]) -> str:
    return f"{max(figures):.0f} ms" if figures else ""


def markdown(rows: Sequence[Row]) -> str:
    """The page."""
    raise NotImplementedError
