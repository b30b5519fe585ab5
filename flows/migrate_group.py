"""Migrate several running containers together: they freeze at once, and all of them move, or none."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Prefect reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from flows.publish import Progress, publish
from flows.recover import end_what_was_left
from sealift import inventory as inventories
from sealift.errors import SealiftError
from sealift.migration import progress
from sealift.migration.again import again_after_rollback
from sealift.migration.finish import report
from sealift.migration.group import Group, of_project
from sealift.migration.session import Request
from sealift.model import Report, Strategy
from tasks.attest import attest
from tasks.final_dump import final_dump
from tasks.finish import finish
from tasks.network_switch import network_switch
from tasks.pre_dump import pre_dump
from tasks.preflight import preflight
from tasks.provision_keys import provision_keys
from tasks.restore import restore
from tasks.sync import sync
from tasks.transfer import transfer

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
    inventory: Annotated[
        Path | None, Field(description="The inventory file. Default: ./sealift.toml, or the running lab's.")
    ] = None,
    strategy: Annotated[
        Strategy, Field(description="How memory gets across; auto chooses by what the hosts can do.")
    ] = Strategy.AUTO,
    max_rounds: Annotated[int, Field(description="Most pre-dump rounds.", ge=1, le=30)] = 5,
    evidence: Annotated[
        Literal["snp", "sev", "none"] | None,
        Field(
            description="What the destination must prove. Default: what the inventory says; none only by name."
        ),
    ] = None,
    max_downtime: Annotated[
        float | None,
        Field(description="Longest predicted freeze, in seconds; refused if none keeps to it.", gt=0),
    ] = None,
    bandwidth: Annotated[
        int | None, Field(description="What may be sent before the freeze, in bytes a second.", gt=0)
    ] = None,
    throttle: Annotated[
        bool, Field(description="Slow a writer down that gets memory dirty faster than the link carries it.")
    ] = False,
    compress: Annotated[
        bool,
        Field(
            description="Compress pages on their way (zstd): for links slower than a processor compresses."
        ),
    ] = False,
    retries: Annotated[
        int, Field(description="How often to try again after a cutover that was rolled back.", ge=0, le=10)
    ] = 0,
) -> list[Report]:
    """Migrate several running containers together.

    Args:
        source: The host that they run on, by its name in the inventory.
        destination: The host that they are to run on, by its name in the inventory.
        containers: Names or ids of running containers.
        project: A Docker Compose project instead: all of its running containers.
        inventory: The inventory file. Default: ./sealift.toml, or the running lab's.
        strategy: How memory gets across, as with one container.
        max_rounds: Most pre-dump rounds of each.
        evidence: What the destination must prove, as with one container.
        max_downtime: Longest freeze that may be predicted of any, in seconds.
        bandwidth: What may be sent before the freeze for each, in bytes a second.
        throttle: Whether writers that never converge may be slowed down until the freeze.
        compress: Whether pages are compressed on their way, by zstd. Post-copy's are not.
        retries: How often to try again after a cutover that was rolled back.

    Returns a report for each. Raises as `migrate` does, for all of them: a MigrationFailed means that all were rolled
    back.

    """
    known = inventories.load(inventory)
    names = [*(containers or []), *(of_project(known, source, project) if project else [])]
    asked = (strategy, max_rounds, evidence, max_downtime, bandwidth, throttle, compress)
    requests = [Request(name, source, destination, *asked) for name in names]
    with progress.listening(Progress(len(names))):
        made, rollbacks = again_after_rollback(lambda: _once(known, requests), retries)
    made = [one.model_copy(update={"warnings": [*rollbacks, *one.warnings]}) for one in made]
    for one in made:
        publish(one)
    return made


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
    runs: list[list[Any]] = []
    for cutover in group.arm():
        chain: list[Any] = []
        for step in (final_dump, transfer, restore, network_switch):
            chain.append(step.submit(cutover, wait_for=chain[-1:]))  # type: ignore[call-overload]
        runs.append(chain)
    failures: dict[int, SealiftError] = {}
    for number, chain in enumerate(runs):
        try:
            for run in chain:
                run.result()
        except SealiftError as failed:
            failures[number] = failed
    if failures:
        raise group.first_failure(failures)
