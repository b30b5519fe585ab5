"""Sync: image, volumes and files go over while the container runs."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import steps
from sealift.migration.results import Copy, Plan, Provisioned  # noqa: TC001 - Prefect reads the annotations
from sealift.migration.session import Session  # noqa: TC001 - as above


@task(name="sync", cache_policy=NO_CACHE, persist_result=False)
def sync(session: Session, destination: Provisioned, plan: Plan) -> Copy:
    """Send the image, create the counterpart, send the files."""
    return steps.sync(session, destination, plan)
