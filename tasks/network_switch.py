"""Network switch: the gateway moves the address. This is the commit."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.cutover import Cutover  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord


@task(name="network switch", cache_policy=NO_CACHE)
def network_switch(cutover: Cutover) -> StepRecord:
    """Watch until the end. Returns how the gateway decided."""
    cutover.attend()
    return cutover.wait(Step.NETWORK_SWITCH)
