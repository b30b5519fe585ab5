"""Pre-dump: rounds of dirty pages straight to the destination's page server, as long as a round pays."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import steps
from sealift.migration.results import Plan, PreDumped  # noqa: TC001 - Prefect reads the annotations
from sealift.migration.session import Session  # noqa: TC001 - as above


@task(name="pre-dump", cache_policy=NO_CACHE, persist_result=False)
def pre_dump(session: Session, plan: Plan) -> PreDumped:
    """Send the pages that can go ahead, if the kernel tracks dirty ones; make those of a post-copy ready."""
    return steps.pre_dump(session, plan)
