"""Attest: the destination proves what it is, before anything of the container leaves the source."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.session import Session  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord
from tasks.retrying import if_unreachable


@task(
    name="attest",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=if_unreachable,
    cache_policy=NO_CACHE,
)
def attest(session: Session) -> StepRecord:
    """Fetch the evidence, verify it against the owner's policy, pin the keys that it binds. A rejection is final."""
    with session.step(Step.ATTEST) as facts:
        facts["note"] = session.attest()
    return session.recorded(Step.ATTEST)
