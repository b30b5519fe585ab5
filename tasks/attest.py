"""Attest: the destination proves what it is, before anything of the container leaves the source."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import steps
from sealift.migration.results import Attested  # noqa: TC001 - Prefect reads the annotations
from sealift.migration.session import Session  # noqa: TC001 - as above
from tasks.retrying import if_unreachable


@task(
    name="attest",
    retries=steps.RETRIES,
    retry_delay_seconds=steps.RETRY_DELAY_S,
    retry_condition_fn=if_unreachable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def attest(session: Session) -> Attested:
    """Fetch the evidence, verify it against the owner's policy, pin the keys that it binds. A rejection is final."""
    return steps.attest(session)
