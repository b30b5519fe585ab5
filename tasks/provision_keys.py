"""Provision keys: the disk's, and WireGuard peers, over the connection that is bound to the evidence."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration.session import Session  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord
from tasks.retrying import if_unreachable


@task(
    name="provision keys",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=if_unreachable,
    cache_policy=NO_CACHE,
)
def provision_keys(session: Session) -> StepRecord:
    """Release keys to the verified destination, and make gateway and source know its new one."""
    with session.step(Step.PROVISION_KEYS) as facts:
        facts["note"] = session.provision()
    return session.recorded(Step.PROVISION_KEYS)
