"""Restore: the armed container at the destination becomes the process tree."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.cutover import Cutover  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord
from tasks.watching import Watchers  # noqa: TC001 - as above


@task(name="restore", cache_policy=NO_CACHE, persist_result=False)
def restore(cutover: Cutover, watchers: Watchers) -> StepRecord:
    """Watch until the end. Returns how the processes came to run at the destination."""
    watchers.attend()
    return watchers.record(cutover, Step.RESTORE)
