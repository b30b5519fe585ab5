"""Measure every point of a plan, in random order, and show what came out."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from benchmarks import compare, frames
from benchmarks import sweep as sweeps
from benchmarks.flows.evaluate import evaluate
from benchmarks.flows.publish import SweepProgress, publish_comparison, publish_rows
from benchmarks.testbed import lab_of
from flows.admission import admit_without_inventory
from sealift.errors import Refused
from sealift.inventory import lab_inventory


@flow(name="sweep", flow_run_name="sweep {plan}")
def sweep(
    plan: Annotated[Path, Field(description="The TOML file of axes.")],
    results: Annotated[
        Path, Field(description="Folder of its results; rows that are there are not measured again.")
    ],
    baseline: Annotated[
        str | None,
        Field(
            description="Results to compare with at the end: a file, a folder, or `previous` for the dated folder "
            "before this one. A regression fails the run."
        ),
    ] = None,
    dated: Annotated[
        bool, Field(description="Measure anew into a folder of today's date below the results.")
    ] = False,
) -> Path:
    """Measure every point of a plan that is not measured yet.

    Args:
        plan: The TOML file of axes (`benchmarks/sweeps/` has some).
        results: Folder of its results; rows that are there are not measured again.
        baseline: Results to compare with at the end. A regression fails the run.
        dated: Measure anew into a folder of today's date below the results: for schedules.

    Returns the file of all rows. Raises UnusableInput for a plan or a folder that is none, Refused for a regression.

    """
    admit_without_inventory()
    before = _baseline(baseline, results)
    if dated:
        results /= f"{datetime.now(UTC):%Y-%m-%d}"
    chosen = sweeps.read_plan(plan)
    kept = sweeps.Results(results, chosen)
    progress = SweepProgress()
    finished = kept.finished()
    todo = [point for point, repeat in chosen.order() if point.key(repeat) not in finished]
    for kind, _ in itertools.groupby(todo, key=lambda point: point.lab):
        with lab_of(kind, say=_say):
            for _ in sweeps.run(
                chosen,
                kept,
                lambda point, repeat: evaluate(point, repeat, lab_inventory(), chosen.name),
                progress.tell,
                kind,
            ):
                pass
    made = kept.gather()
    rows = kept.load()
    publish_rows(rows, results)
    if before is not None:
        changes = compare.changes(frames.load(before), rows)
        publish_comparison(changes)
        if worse := [change for change in changes if change.worse]:
            raise Refused(
                "slower than the baseline: " + "; ".join(map(str, worse)),
                step="compare",
                remedy="Look at what has changed since, or measure again on a quiet machine",
            )
    return made


def _baseline(chosen: str | None, results: Path) -> Path | None:
    """What to compare with. The first dated run has nothing before it."""
    if chosen != "previous":
        return Path(chosen) if chosen else None
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    dates = sorted(path for path in results.glob("20??-??-??") if path.name < today)
    return dates[-1] if dates else None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
