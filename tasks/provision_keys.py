"""Provision keys: the disk's, and WireGuard peers, over the connection that is bound to the evidence."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import steps
from sealift.migration.results import Attested, Provisioned  # noqa: TC001 - Prefect reads the annotations
from sealift.migration.session import Session  # noqa: TC001 - as above
from tasks.retrying import if_unreachable


@task(
    name="provision keys",
    retries=steps.RETRIES,
    retry_delay_seconds=steps.RETRY_DELAY_S,
    retry_condition_fn=if_unreachable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def provision_keys(session: Session, attested: Attested) -> Provisioned:
    """Release keys to the verified destination, and make gateway and source know its new one."""
    return steps.provision_keys(session, attested)
