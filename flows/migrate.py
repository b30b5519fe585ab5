"""Migrate one running container from one Docker host to another, live."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.admission import InventoryFile, admit
from flows.ending import keep
from flows.publish import Progress, publish
from flows.recover import end_what_was_left
from sealift.migration import group, progress
from sealift.migration.request import DEFAULTS, Options, Request, Retries
from sealift.model import Report  # noqa: TC001 - Prefect reads the annotations
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
    options: Annotated[Options, Field(description="How to migrate.")] = DEFAULTS,
    inventory: InventoryFile = None,
    retries: Retries = 0,
) -> Report:
    """Migrate one running container, live.

    Args:
        container: Name or id of the running container.
        source: The host that it runs on, by its name in the inventory.
        destination: The host that it is to run on, by its name in the inventory.
        options: How to migrate: strategy, limits, evidence (`sealift.migration.request.Options` describes each).
        inventory: The inventory file. Default: ./sealift.toml, or the running lab's.
        retries: How often to try again after a cutover that was rolled back.

    Returns the report. Raises EvidenceRejected or Refused before anything was touched, MigrationFailed after a
    roll-back, HostUnreachable, OutcomeUnknown when nobody who knows could be asked.

    """
    request = Request(container, source, destination, options)
    known = admit(inventory, destination, options.evidence)
    with progress.listening(Progress()):
        # The steps, top to bottom: `sealift.migration.steps.migrate`. Each is a task run here (`tasks.runs`).
        [made] = group.migrate(known, [request], TaskRuns(), retries)
    publish(made)
    return keep(made)
