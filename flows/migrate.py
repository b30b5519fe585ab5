"""Migrate one running container from one Docker host to another, live."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Prefect reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.publish import Progress, publish
from flows.recover import end_what_was_left
from sealift import inventory as inventories
from sealift.migration import progress
from sealift.migration.again import again_after_rollback
from sealift.migration.cutover import Cutover
from sealift.migration.finish import report
from sealift.migration.session import Request, Session
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
    from sealift.inventory import Inventory


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
    )
    known = inventories.load(inventory)
    with progress.listening(Progress()):
        made, rollbacks = again_after_rollback(lambda: _once(known, request), retries)
    made = made.model_copy(update={"warnings": [*rollbacks, *made.warnings]})
    publish(made)
    return made


def _once(inventory: Inventory, request: Request) -> Report:
    """The protocol, top to bottom."""
    with Session.open(inventory, request) as session:
        attest(session)
        provision_keys(session)
        preflight(session)
        sync(session)
        pre_dump(session)
        # Armed now: from "go" to the commit the two hosts and the gateway need nobody. The four tasks are under way
        # before the freeze and only watch.
        session.cutover = cutover = Cutover(session)
        dumped = final_dump.submit(cutover)
        moved = transfer.submit(cutover, wait_for=[dumped])  # type: ignore[call-overload]
        restored = restore.submit(cutover, wait_for=[moved])  # type: ignore[call-overload]
        switched = network_switch.submit(cutover, wait_for=[restored])  # type: ignore[call-overload]
        for step in (dumped, moved, restored, switched):
            step.result()
        finish(session)
        return report(session)
