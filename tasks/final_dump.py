"""Final dump: traffic cut, processes frozen, the remaining pages dumped."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.cutover import Cutover  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord
from tasks.watching import Watchers  # noqa: TC001 - as above


@task(name="final dump", cache_policy=NO_CACHE, persist_result=False)
def final_dump(cutover: Cutover, watchers: Watchers) -> StepRecord:
    """Arm and say go once the others watch, and wait for the end. Returns how the source has dumped."""
    watchers.wait_for_all()
    cutover.begin()
    return watchers.record(cutover, Step.FINAL_DUMP)
