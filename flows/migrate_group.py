"""Migrate several running containers together: they freeze at once, and all of them move, or none."""

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
    name="migrate group",
    flow_run_name="migrate together: {source} to {destination}",
    on_crashed=[end_what_was_left],
    on_cancellation=[end_what_was_left],
)
def migrate_group(
    source: Annotated[str, Field(description="The host that they run on, by its name in the inventory.")],
    destination: Annotated[str, Field(description="The host that they are to run on.")],
    containers: Annotated[
        list[str] | None, Field(description="Names or ids of running containers. Default: the project's.")
    ] = None,
    project: Annotated[
        str | None, Field(description="A Docker Compose project: all of its running containers.")
    ] = None,
    options: Annotated[Options, Field(description="How to migrate each of them.")] = DEFAULTS,
    inventory: InventoryFile = None,
    retries: Retries = 0,
) -> list[Report]:
    """Migrate several running containers together.

    Args:
        source: The host that they run on, by its name in the inventory.
        destination: The host that they are to run on, by its name in the inventory.
        containers: Names or ids of running containers.
        project: A Docker Compose project instead: all of its running containers.
        options: How to migrate each of them, as with one container.
        inventory: The inventory file. Default: ./sealift.toml, or the running lab's.
        retries: How often to try again after a cutover that was rolled back.

    Returns a report for each. Raises as `migrate` does, for all of them: a MigrationFailed means that all were rolled
    back.

    """
    known = admit(inventory, destination, options.evidence)
    names = [*(containers or []), *(group.of_project(known, source, project) if project else [])]
    requests = [Request(name, source, destination, options) for name in names]
    with progress.listening(Progress(len(names))):
        made = group.migrate(known, requests, TaskRuns(), retries)
    for one in made:
        publish(one)
    return keep(made)
