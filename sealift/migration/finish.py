"""Finish: the destination's container is looked at, the source's removed, images are wiped, the report is written."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed, MigrationFailed, SealiftError
from sealift.migration import history
from sealift.model import Evidence, Report, Step, Strategy
from sealift_agent.protocol import CarryOut, Finish

if TYPE_CHECKING:
    from sealift.attestation.record import Record
    from sealift.migration.session import Session


def finish(session: Session) -> str:
    """After the commit. Returns what Docker says of the container at the destination.

    A post-copy's source goes last: until all memory is on the other side it is the only one that has it whole.
    """
    if session.found.choice.strategy == Strategy.POST_COPY:
        try:
            state = session.receiver.call(Finish())
        except CommandFailed:
            session.finished = True  # memory that can't be completed: the frozen copy is left to its owner
            raise
        session.remove_source()
    else:
        session.remove_source()
        state = session.receiver.call(Finish())
    _check_routes(session)
    if state.status != "running":
        raise MigrationFailed(
            f"Docker says that the container is {state.status}",
            host=session.destination.name,
            step=Step.FINISH,
            remedy="It ran when it was restored; `docker logs` there may tell why it ended",
        )
    return state.health or state.status


def _check_routes(session: Session) -> None:
    """The decision holds whether WireGuard at the gateway does it or not. If not, that is said."""
    with suppress(SealiftError):  # one that is away is asked by the next
        behind = session.gateway.call(CarryOut())
        if why := behind.get(session.found.address):
            session.found.warnings.append(
                f"the gateway does not send packets for {session.found.address} to {session.request.destination} yet: "
                f"{why}; it tries again for an hour, and whenever `sealift network show` asks it"
            )


def report(session: Session) -> Report:
    """The report of a session whose steps have all ended."""
    found, cutover, request = session.found, session.cutover, session.request
    if cutover is None:  # a migration without a cutover has no report
        raise MigrationFailed("there was no cutover", step=Step.FINISH)
    lab = session.inventory.lab
    order = list(Step)
    made = Report(
        migration=session.migration,
        container=found.container["Name"].lstrip("/"),
        group=cutover.group,
        address=found.address,
        source=request.source,
        destination=request.destination,
        outcome=cutover.settle(),
        strategy=found.choice.strategy,
        why=found.choice.why,
        steps=sorted(session.records, key=lambda record: order.index(record.step)),
        rounds=found.rounds,
        throttled_cpus=found.throttled_cpus,
        packed_bytes=found.packed_bytes + cutover.dumped.packed_bytes if request.compress else None,
        frozen_ms=cutover.between_ms("frozen", "restored"),
        cut_ms=cutover.between_ms("go", "committed"),
        restore_ms=cutover.restored.restore_ns / 1e6,
        criu_dump_ms=cutover.dumped.statistics.get("frozen_us", 0) / 1000,
        criu_restore_ms=sum(cutover.restored.statistics.get(each, 0) for each in ("forking_us", "restore_us"))
        / 1000,
        total_ms=(time.monotonic_ns() - session.started_ns) / 1e6,
        estimate=found.estimate,
        since_estimate_ms=(time.monotonic_ns() - found.estimated_ns) / 1e6,
        memory_bytes=sum(r.sent_bytes for r in found.rounds)
        + cutover.received.page_bytes
        + found.fetched_bytes,
        last_bytes=cutover.received.page_bytes,
        file_bytes=found.file_bytes + cutover.dumped.file_bytes,
        image_bytes=found.image_bytes,
        metadata_bytes=cutover.sent.metadata_bytes,
        lab=lab.kind if lab else None,
        accelerator=lab.accelerator if lab else None,
        evidence=_evidence(found.record),
        verified=found.record.sentences() if found.record else [],
        warnings=found.warnings,
    )
    _learn(session, made, cutover.received.page_bytes)
    return made


def _learn(session: Session, made: Report, frozen_page_bytes: int) -> None:
    """Remember what this migration took besides moving bytes. That it can't be remembered is no failure of its own."""
    estimate = made.estimate
    if estimate is None or estimate.link_bytes_s is None or made.outcome != "committed":
        return
    link = estimate.link_bytes_s
    live = min(link, session.request.bandwidth or link)
    rounds_ms = sum(one.duration_ms for one in made.rounds)
    moved_ms = 1000 * (made.file_bytes + made.image_bytes) / live + 1000 * session.found.fetched_bytes / link
    with suppress(OSError, SealiftError):
        history.learn(
            session.inventory,
            made.source,
            made.destination,
            floor_ms=made.frozen_ms - 1000 * frozen_page_bytes / link,
            fixed_ms=made.since_estimate_ms - made.frozen_ms - rounds_ms - moved_ms,
        )


def _evidence(record: Record | None) -> Evidence:
    if record is None:
        return Evidence.ABSENT
    return Evidence.EMULATED if record.emulated else Evidence.REAL
