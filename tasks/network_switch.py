"""Network switch: the gateway moves the address. This is the commit."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.cutover import Cutover  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord
from tasks.watching import Watchers  # noqa: TC001 - as above


@task(name="network switch", cache_policy=NO_CACHE, persist_result=False)
def network_switch(cutover: Cutover, watchers: Watchers) -> StepRecord:
    """Watch until the end. Returns how the gateway decided."""
    watchers.attend()
    return watchers.record(cutover, Step.NETWORK_SWITCH)
