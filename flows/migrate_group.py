"""Migrate several running containers together: they freeze at once, and all of them move, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from prefect import flow
from pydantic import Field

from flows.admission import InventoryFile, admit
from flows.ending import keep
from flows.publish import Progress, publish
from flows.recover import end_what_was_left
from sealift.errors import SealiftError
from sealift.migration import progress
from sealift.migration.again import again_after_rollback
from sealift.migration.finish import report
from sealift.migration.group import Group, of_project
from sealift.migration.request import DEFAULTS, Options, Request, Retries
from sealift.model import Report  # noqa: TC001 - Prefect reads the annotations
from tasks.attest import attest
from tasks.cutover import under_way
from tasks.finish import finish
from tasks.pre_dump import pre_dump
from tasks.preflight import preflight
from tasks.provision_keys import provision_keys
from tasks.sync import sync

if TYPE_CHECKING:
    from prefect import Task

    from sealift.inventory import Inventory
    from sealift.migration.session import Session
    from sealift.model import StepRecord


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
    names = [*(containers or []), *(of_project(known, source, project) if project else [])]
    requests = [Request(name, source, destination, options) for name in names]
    with progress.listening(Progress(len(names))):
        made, rollbacks = again_after_rollback(lambda: _once(known, requests), retries)
    made = [one.model_copy(update={"warnings": [*rollbacks, *one.warnings]}) for one in made]
    for one in made:
        publish(one)
    return keep(made)


def _once(inventory: Inventory, requests: list[Request]) -> list[Report]:
    with Group.open(inventory, requests) as group:
        for session in group.sessions:
            attest(session)
            provision_keys(session)
        for step in (preflight, sync, pre_dump):
            _each(step, group.sessions)
        _cut_over(group)
        for session in group.sessions:
            finish(session)
        return [report(session) for session in group.sessions]


def _each(step: Task[[Session], StepRecord], sessions: list[Session]) -> None:
    """The same step of all of them at once; all have ended when one that failed is raised."""
    runs = [step.submit(session) for session in sessions]
    for run in runs:
        run.wait()
    for run in runs:
        run.result()


def _cut_over(group: Group) -> None:
    """As in a migration of one, the tasks are under way before the freeze and only watch."""
    runs = [under_way(cutover) for cutover in group.cutovers()]
    failures: dict[int, SealiftError] = {}
    for number, chain in enumerate(runs):
        try:
            for run in chain:
                run.result()
        except SealiftError as failed:
            failures[number] = failed
    if failures:
        raise group.first_failure(failures)
