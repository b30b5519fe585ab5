"""Final dump: traffic cut, processes frozen, what is left dumped."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.cutover import Cutover  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord


@task(name="final dump", cache_policy=NO_CACHE)
def final_dump(cutover: Cutover) -> StepRecord:
    """Say go, and wait until the source has dumped."""
    cutover.begin()
    return cutover.wait(Step.FINAL_DUMP)
