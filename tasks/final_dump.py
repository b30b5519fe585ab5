"""Final dump: traffic cut, processes frozen, what is left dumped."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.cutover import Cutover  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord


@task(name="final dump", cache_policy=NO_CACHE)
def final_dump(cutover: Cutover, watchers: int) -> StepRecord:
    """Arm and say go once the others watch, and wait for the end. Returns how the source has dumped."""
    cutover.begin(watchers)
    return cutover.wait(Step.FINAL_DUMP)
