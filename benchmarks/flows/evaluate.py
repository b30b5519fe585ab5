"""Measure one point once: a workload under its client's hands, moved, a row made of it."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from benchmarks.evaluate import Measured
from benchmarks.evaluate import evaluate as measure
from benchmarks.point import Point  # noqa: TC001 - Prefect reads the annotations
from benchmarks.testbed import Testbed
from flows.admission import InventoryFile, admit
from flows.migrate import migrate


@flow(name="evaluate", flow_run_name="evaluate {point.system}: {point.workload}, repeat {repeat}")
def evaluate(
    point: Annotated[Point, Field(description="What to measure.")],
    repeat: Annotated[int, Field(description="Number of the repeat.", ge=0)] = 0,
    inventory: InventoryFile = None,
    sweep: Annotated[str, Field(description="Name of the sweep that the row belongs to.")] = "",
) -> Measured:
    """Measure one point once.

    Args:
        point: What to measure.
        repeat: Number of the repeat.
        inventory: The inventory file. Default: ./sealift.toml, or the running lab's.
        sweep: Name of the sweep that the row belongs to.

    Returns the row with what pictures of it need. A system that fails, or can't be measured here, is a row too.

    """
    with Testbed.open(admit(inventory), say=print) as testbed:
        return measure(testbed, point, repeat, migrate, sweep=sweep)
