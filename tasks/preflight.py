"""Preflight: both hosts and the container looked at; refused with all reasons at once."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import preflight as checks
from sealift.migration.session import Session  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord
from tasks.retrying import if_unreachable


@task(
    name="preflight",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=if_unreachable,
    cache_policy=NO_CACHE,
)
def preflight(session: Session) -> StepRecord:
    """Find everything that would stop the migration before anything is touched."""
    with session.step(Step.PREFLIGHT) as facts:
        checks.preflight(session)
        facts["note"] = f"{session.found.choice.strategy}: {session.found.choice.why}"
    return session.recorded(Step.PREFLIGHT)
