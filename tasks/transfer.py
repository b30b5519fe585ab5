"""Transfer: the last images reach the destination."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.cutover import Cutover  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord
from tasks.watching import Watchers  # noqa: TC001 - as above


@task(name="transfer", cache_policy=NO_CACHE, persist_result=False)
def transfer(cutover: Cutover, watchers: Watchers) -> StepRecord:
    """Watch until the end. Returns how the destination got everything that it needs."""
    watchers.attend()
    return watchers.record(cutover, Step.TRANSFER)
