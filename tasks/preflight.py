"""Preflight: both hosts and the container inspected; refused with all reasons at once."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import steps
from sealift.migration.results import Planned, Provisioned  # noqa: TC001 - Prefect reads the annotations
from sealift.migration.session import Session  # noqa: TC001 - as above
from tasks.retrying import if_unreachable


@task(
    name="preflight",
    retries=steps.RETRIES,
    retry_delay_seconds=steps.RETRY_DELAY_S,
    retry_condition_fn=if_unreachable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def preflight(session: Session, destination: Provisioned) -> Planned:
    """Find everything that would stop the migration before anything is touched."""
    return steps.preflight(session, destination)
