"""Migrate one running container from one Docker host to another, live."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows import parameters  # noqa: TC001 - Prefect reads the annotations
from flows.admission import admit
from flows.ending import keep
from flows.publish import Progress, publish
from flows.recover import end_what_was_left
from sealift.migration import group, progress
from sealift.migration.again import again_after_rollback
from sealift.migration.request import Request
from sealift.model import Report, Strategy
from tasks.runs import TaskRuns


@flow(
    name="migrate",
    flow_run_name="migrate {container}: {source} to {destination}",
    on_crashed=[end_what_was_left],
    on_cancellation=[end_what_was_left],
)
def migrate(
    container: Annotated[str, Field(description="Name or id of the running container.", min_length=1)],
    source: Annotated[str, Field(description="The host that it runs on, by its name in the inventory.")],
    destination: Annotated[str, Field(description="The host that it is to run on.")],
    inventory: parameters.Inventory = None,
    strategy: parameters.Strategy = Strategy.AUTO,
    max_rounds: parameters.Rounds = 5,
    evidence: parameters.Evidence = None,
    max_downtime: parameters.Downtime = None,
    bandwidth: parameters.Bandwidth = None,
    throttle: parameters.Throttle = False,
    compress: parameters.Compress = False,
    streams: parameters.Streams = None,
    retries: parameters.Retries = 0,
) -> Report:
    """Migrate one running container, live.

    Args:
        container: Name or id of the running container.
        source: The host that it runs on, by its name in the inventory.
        destination: The host that it is to run on, by its name in the inventory.
        inventory: The inventory file. Default: ./sealift.toml, or the running lab's.
        strategy: How memory gets across. `auto` chooses by what the hosts can do.
        max_rounds: Most pre-dump rounds.
        evidence: What the destination must prove: snp, sev, or none, which has to be asked for by name. By default
            what the inventory says.
        max_downtime: Longest freeze that may be predicted, in seconds. `auto` takes the least risky strategy that keeps
            to it; refused if there is none.
        bandwidth: What may be sent before the freeze, in bytes a second.
        throttle: Whether a writer that gets memory dirty faster than the link carries it may be slowed down until the
            freeze.
        compress: Whether pages are compressed on their way, by zstd. Post-copy's are not.
        streams: Over how many connections pages go. By default several where the way is long and they carry more than
            one. Post-copy's go over one.
        retries: How often to try again after a cutover that was rolled back.

    Returns the report. Raises EvidenceRejected or Refused before anything was touched, MigrationFailed after a
    roll-back, HostUnreachable, OutcomeUnknown when nobody who knows could be asked.

    """
    request = Request(
        container,
        source,
        destination,
        strategy,
        max_rounds,
        evidence,
        max_downtime,
        bandwidth,
        throttle,
        compress,
        streams,
    )
    known = admit(inventory, destination, evidence)
    with progress.listening(Progress()):
        # The steps, top to bottom: `sealift.migration.steps.migrate`. Each is a task run here (`tasks.runs`).
        [made], rollbacks = again_after_rollback(lambda: group.migrate(known, [request], TaskRuns()), retries)
    made = made.model_copy(update={"warnings": [*rollbacks, *made.warnings]})
    publish(made)
    return keep(made)
