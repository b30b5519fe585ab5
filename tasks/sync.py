"""Sync: image, volumes and files go over while the container runs."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import sync as files
from sealift.migration.session import Session  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord


@task(name="sync", cache_policy=NO_CACHE)
def sync(session: Session) -> StepRecord:
    """Send the image, create the counterpart, send the files."""
    with session.step(Step.SYNC) as facts:
        session.found.image_bytes = files.sync_image(session)
        files.open_doors(session, files.create_copy(session))
        session.found.file_bytes = files.live_pass(session)
        facts["sent_bytes"] = session.found.image_bytes + session.found.file_bytes
    return session.recorded(Step.SYNC)
