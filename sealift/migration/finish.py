"""The step finish: check the destination's container, remove the source's, remove images, write the report."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed, MigrationFailed, SealiftError
from sealift.migration import history
from sealift.model import Evidence, Report, Step, Strategy
from sealift_agent.protocol import Began, CarryOut, Committed, Finish, Frozen, Outcome, Restored

if TYPE_CHECKING:
    from sealift.attestation.record import Record
    from sealift.migration.heard import Heard
    from sealift.migration.results import Finished, Moved, Ready
    from sealift.migration.session import Session
    from sealift_agent.protocol import Waited


def finish(session: Session, ready: Ready) -> tuple[str, int, Waited | None]:
    """Finish after the commit. Returns Docker's status of the container, the bytes that were fetched, and the waits.

    A post-copy's source is removed last, since only it has the whole memory until all is fetched.
    """
    destination = session.parties.destination
    if ready.plan.choice.strategy == Strategy.POST_COPY:
        try:
            state = destination.agent.call(Finish())
        except CommandFailed:
            session.closing.leave_source()
            raise
        fetched_bytes = session.closing.remove_source()
    else:
        fetched_bytes = session.closing.remove_source()
        state = destination.agent.call(Finish())
    if state.status != "running":
        raise MigrationFailed(
            f"Docker says that the container is {state.status}",
            host=destination.side.name,
            step=Step.FINISH,
            remedy="It ran when it was restored; `docker logs` there may tell why it ended",
        )
    return state.health or state.status, fetched_bytes, state.waited


def check_routes(session: Session, address: str) -> tuple[str, ...]:
    """The decision is valid even if WireGuard at the gateway does not follow it. Returns a warning in that case."""
    with suppress(SealiftError):  # the next step asks a gateway that does not answer
        behind = session.parties.gateway.call(CarryOut())
        if why := behind.get(address):
            return (
                f"the gateway does not send packets for {address} to {session.request.destination} yet: "
                f"{why}; it tries again for an hour, and whenever `sealift network show` asks it",
            )
    return ()


def report(session: Session, ready: Ready, moved: Moved, finished: Finished) -> Report:
    """The report of a migration whose steps have all ended."""
    plan, copy, memory, heard = ready.plan, ready.copy, moved.memory, moved.heard
    request, lab, record = session.request, session.inventory.lab, ready.destination.record
    frozen_page_bytes = heard.received.page_bytes
    made = Report(
        migration=session.migration,
        container=plan.container["Name"].lstrip("/"),
        group=list(moved.group),
        address=plan.address,
        source=request.source,
        destination=request.destination,
        outcome=Outcome.COMMITTED.value,
        strategy=plan.choice.strategy,
        why=plan.choice.why,
        steps=[*ready.steps, *moved.steps, finished.step],
        rounds=list(memory.rounds),
        throttled_cpus=memory.throttled_cpus,
        packed_bytes=memory.packed_bytes + heard.dumped.packed_bytes if request.options.compress else None,
        frozen_ms=heard.between_ms(Frozen, Restored),
        cut_ms=heard.between_ms(Began, Committed),
        restore_ms=heard.restored.restore_ns / 1e6,
        criu_dump_ms=heard.dumped.statistics.get("frozen_us", 0) / 1000,
        criu_restore_ms=sum(heard.restored.statistics.get(each, 0) for each in ("forking_us", "restore_us"))
        / 1000,
        total_ms=(time.monotonic_ns() - session.started_ns) / 1e6,
        **_stall(finished),
        estimate=plan.estimate,
        since_estimate_ms=(time.monotonic_ns() - plan.estimated_ns) / 1e6,
        memory_bytes=sum(r.sent_bytes for r in memory.rounds) + frozen_page_bytes + finished.fetched_bytes,
        last_bytes=frozen_page_bytes,
        file_bytes=copy.file_bytes + heard.dumped.file_bytes,
        image_bytes=copy.image_bytes,
        metadata_bytes=heard.sent.metadata_bytes,
        lab=lab.kind if lab else None,
        accelerator=lab.accelerator if lab else None,
        evidence=_evidence(record),
        verified=record.sentences() if record else [],
        warnings=[*session.warnings, *plan.warnings, *memory.warnings, *_cut_off(heard), *finished.warnings],
    )
    _learn(session, made, plan.cost_ms, frozen_page_bytes, finished.fetched_bytes)
    return made


def _stall(finished: Finished) -> dict[str, float]:
    """The report's fields of what was waited for after the resume. None of them if memory was complete."""
    waited = finished.waited
    if waited is None:
        return {}
    return {
        "stall_ms": waited.most_ns / 1e6,
        "longest_wait_ms": waited.longest_ns / 1e6,
        "complete_ms": waited.complete_ns / 1e6,
    }


def _cut_off(heard: Heard) -> list[str]:
    """A warning of connections that have lost data."""
    frozen = heard.said(Frozen)
    if frozen is None or not frozen.cut_off:
        return []
    return [
        f"{frozen.cut_off} connections that the program had closed still had data to send, and no program has them "
        "any more to take them along: their peers miss its end and are reset"
    ]


def _learn(
    session: Session, made: Report, cost_ms: float, frozen_page_bytes: int, fetched_bytes: int
) -> None:
    """Remember how fast the two hosts were. An error in this is ignored."""
    estimate = made.estimate
    if estimate is None or estimate.link_bytes_s is None:
        return
    link = estimate.link_bytes_s
    live = min(link, session.request.options.bandwidth or link)
    rounds_ms = sum(one.duration_ms for one in made.rounds)
    moved_ms = 1000 * (made.file_bytes + made.image_bytes) / live + 1000 * fetched_bytes / link
    with suppress(OSError, SealiftError):
        history.learn(
            session.inventory,
            made.source,
            made.destination,
            factor=(made.frozen_ms - 1000 * frozen_page_bytes / link) / cost_ms,
            fixed_ms=made.since_estimate_ms - made.frozen_ms - rounds_ms - moved_ms,
        )


def _evidence(record: Record | None) -> Evidence:
    if record is None:
        return Evidence.ABSENT
    return Evidence.EMULATED if record.emulated else Evidence.REAL
