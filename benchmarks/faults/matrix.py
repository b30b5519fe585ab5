"""Run the matrix: many cells one after the other, their results, and the remaining time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks import kept
from benchmarks.faults import cell as trial
from benchmarks.faults.cell import Verdict
from benchmarks.faults.moments import NAMES, moment
from sealift.lab import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.faults.faults import Cell
    from benchmarks.faults.orchestrator import Orchestrator
    from sealift.lab.plan import Kind


def trials(cells: Iterable[Cell], orchestrator: Orchestrator, kind: Kind) -> Iterator[Verdict]:
    """Try cells in a lab that stays up. After a cell that did not hold, the lab is made again."""
    fit = True
    for cell in cells:
        if not fit:
            lab.down()
            lab.up(kind, say=lambda _: None)
        verdict = trial.run(cell, orchestrator)
        fit = verdict.ok
        yield verdict


def told(verdicts: Iterable[Verdict], count: int, say: Callable[[str], None]) -> Iterator[Verdict]:
    """Report each verdict when it comes, with the time for the rest of `count`. Yields the same verdicts."""
    began = time.monotonic()
    for done, verdict in enumerate(verdicts, start=1):
        rest_s = (time.monotonic() - began) / done * (count - done)
        held = "ok" if verdict.ok else "; ".join(verdict.wrong)
        say(
            f"{done}/{count} {verdict.cell}: {held}, at {verdict.owner} "
            f"({verdict.seconds:.0f} s; {rest_s / 60:.0f} min left)"
        )
        if not verdict.ok:
            say("".join(f"    {line}\n" for line in verdict.said))
        yield verdict


def holds(verdict: Verdict | None, code: str) -> bool:
    """Whether a cell need not be tried again: it held with exactly this code, and this code is committed."""
    return verdict is not None and verdict.ok and verdict.code == code and not code.endswith("+")


def stored(path: Path) -> dict[str, Verdict]:
    """The verdicts of such a file by the cells' names. None if there is no file.

    UnusableInput for another kind of file.
    """
    found = kept.stored(path, from_fields, "verdicts", "sealift bench faults")
    return {verdict.cell: verdict for verdict in found}


def from_fields(fields: dict[str, Any]) -> Verdict:
    """One verdict from its JSON object. TypeError or KeyError for another object."""
    return Verdict(**fields | {name: tuple(fields[name]) for name in ("wrong", "said")})


def table(verdicts: Sequence[Verdict]) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, rows and notes: a row for each fault, a column for each moment, a number for each failed cell."""
    found = {verdict.cell: verdict for verdict in verdicts}
    moments = [name for name in NAMES if any(cell.endswith(f"@{name}") for cell in found)]
    faults = list(dict.fromkeys(cell.partition("@")[0] for cell in found))
    rows: list[list[str]] = []
    notes: list[str] = []
    for fault in faults:
        row = [fault]
        for name in moments:
            verdict = found.get(f"{fault}@{name}")
            if verdict is None:
                row.append("")
            elif verdict.ok:
                row.append("ok")
            else:
                notes.append(f"{len(notes) + 1}. {verdict.cell}: {'; '.join(verdict.wrong)}")
                row.append(f"({len(notes)})")
        rows.append(row)
    heads = [f"{one.name}\n{one.step}, {one.part}" for one in map(moment, moments)]
    return ["fault", *heads], rows, notes
