"""Pre-dump: rounds of dirty pages straight to the destination's page server, as long as a round pays."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sealift.migration import predump
from sealift.migration.session import Session  # noqa: TC001 - Prefect reads the annotations
from sealift.model import Step, StepRecord, Strategy


@task(name="pre-dump", cache_policy=NO_CACHE)
def pre_dump(session: Session) -> StepRecord:
    """Send the pages that can go ahead, if the kernel tracks dirty ones; make those of a post-copy ready."""
    with session.step(Step.PRE_DUMP) as facts:
        gathered = predump.prepare(session)
        rounds = session.found.rounds
        if session.found.choice.strategy == Strategy.PRE_COPY:
            facts["note"] = f"{len(rounds)} rounds"
        else:
            facts["note"] = f"none: {session.found.choice.why}"
        if gathered:
            facts["note"] += f"; {gathered >> 20} MiB in huge pages, for a shorter dump"
        facts["sent_bytes"] = sum(made.sent_bytes for made in rounds)
    return session.recorded(Step.PRE_DUMP)
