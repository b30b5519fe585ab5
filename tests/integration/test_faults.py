"""A sample of the fault matrix (`sealift bench faults`): whatever breaks, one live copy stays, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.faults import cell as trial
from benchmarks.faults import matrix
from benchmarks.faults.faults import FAULTS, SAMPLE, cells
from benchmarks.faults.moments import MOMENTS
from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from stage import Stage

DEAD = sorted({cell.name for cell in cells(["everybody@*"])} - {*SAMPLE})
"""Everybody who could put a migration right is killed: `recover` does it from the gateway's record."""


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.parametrize(
    "name", [*SAMPLE[:3], *(pytest.param(name, marks=pytest.mark.whole) for name in (*SAMPLE[3:], *DEAD))]
)
def test_one_live_copy_stays_and_nothing_else(stage: Stage, name: str) -> None:
    (cell,) = cells([name])
    verdict = trial.run(cell)
    print(verdict)
    assert verdict.ok, verdict


def test_cells_are_chosen_by_patterns() -> None:
    every = {cell.name for cell in cells([])}
    assert {cell.name for cell in cells(["disk@*"])} == {f"disk@{moment.name}" for moment in MOMENTS}
    assert set(SAMPLE) <= every
    assert all(f"{fault.name}@frozen" in every for fault in FAULTS)
    assert "armed:source@sync" not in every, "nothing is armed then"
    with pytest.raises(UnusableInput, match="no cell is named"):
        cells(["flood@sync"])


def test_the_table_says_what_did_not_hold() -> None:
    held = trial.Verdict("disk@sync", (), "source", (), 1.0)
    broken = trial.Verdict("disk@sent", ("the client: NOT INTACT",), "source", (), 1.0)
    heads, rows, notes = matrix.table([held, broken])
    assert heads == ["fault", "sync\nsync, start", "sent\ntransfer, middle"]
    assert rows == [["disk", "ok", "(1)"]]
    assert notes == ["1. disk@sent: the client: NOT INTACT"]
