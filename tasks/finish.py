"""Finish: the destination looked at, the source removed, images wiped."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import finish as ending
from sealift.migration.session import Session  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord


@task(name="finish", cache_policy=NO_CACHE)
def finish(session: Session) -> StepRecord:
    """After the commit: put the source's copy away."""
    with session.step(Step.FINISH) as facts:
        facts["note"] = ending.finish(session)
    return session.recorded(Step.FINISH)
