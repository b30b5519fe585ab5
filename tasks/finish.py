"""Finish: the destination inspected, the source removed, images wiped."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import steps
from sealift.migration.results import Finished, Ready  # noqa: TC001 - Prefect reads the annotations
from sealift.migration.session import Session  # noqa: TC001 - as above


@task(name="finish", cache_policy=NO_CACHE, persist_result=False)
def finish(session: Session, ready: Ready) -> Finished:
    """After the commit: put the source's copy away."""
    return steps.finish(session, ready)
