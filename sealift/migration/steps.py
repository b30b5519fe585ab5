"""The steps of a migration and their order, defined once. Flow, group and benchmark each run them by their own runner.

Each step takes the session and earlier results, and returns one frozen result (`results`). From `arm` on the hosts need
no controller: `cutover` and the hosts' agents have the four steps of the cutover.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple

from sealift.attestation import attest as attestation
from sealift.attestation import provision
from sealift.errors import SealiftError, UnusableInput
from sealift.host import ssh
from sealift.migration import finish as ending
from sealift.migration import preflight as checks
from sealift.migration import progress
from sealift.migration.cutover import Cutover, Together
from sealift.migration.predump import Rounds
from sealift.migration.results import (
    Attested,
    Copy,
    Finished,
    Moved,
    Plan,
    Planned,
    PreDumped,
    Provisioned,
    Ready,
)
from sealift.migration.sync import Sync
from sealift.model import CUTOVER, Step, StepRecord, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sealift.migration.session import Session
    from sealift.model import Report

RETRIES, RETRY_DELAY_S = 2, 2
"""How often a step that changes nothing is tried again if a host does not answer, and after how many seconds."""

Result = TypeVar("Result")
Inputs = TypeVarTuple("Inputs")


class Runner(Protocol):
    """How steps are run: one after the other here (`InTurn`), or as task runs of a scheduler."""

    def in_turn(self, step: Callable[[*Inputs], Result], members: Iterable[tuple[*Inputs]]) -> list[Result]:
        """Run a step for each member of a group, one after the other: the first prepares what the others can use."""
        ...

    def at_once(self, step: Callable[[*Inputs], Result], members: Iterable[tuple[*Inputs]]) -> list[Result]:
        """Run a step for all members at once. If one fails, the error is raised when all have ended."""
        ...

    def cut_over(self, cutovers: Sequence[Cutover]) -> list[Moved]:
        """Arm and begin all of them, and wait for their end. Raises `first_failure` if one has failed."""
        ...


def migrate(sessions: Sequence[Session], run: Runner) -> list[Report]:
    """The protocol, from top to bottom. Sessions of a group have one decision: all of them move, or none."""
    ready = prepare(sessions, run)
    moved = run.cut_over(cutovers(sessions, ready))
    finished = run.in_turn(finish, zip(sessions, ready, strict=True))
    return [ending.report(*each) for each in zip(sessions, ready, moved, finished, strict=True)]


def prepare(sessions: Sequence[Session], run: Runner) -> list[Ready]:
    """All steps before the hosts are armed, while the containers run."""
    attested = run.in_turn(attest, zip(sessions, strict=True))
    provisioned = run.in_turn(provision_keys, zip(sessions, attested, strict=True))
    planned = run.at_once(preflight, zip(sessions, provisioned, strict=True))
    plans = [one.plan for one in planned]
    copies = run.at_once(sync, zip(sessions, provisioned, plans, strict=True))
    pre_dumped = run.at_once(pre_dump, zip(sessions, plans, strict=True))
    return [
        Ready((one.step, two.step, three.step, copy.step, dumped.step), two, three.plan, copy, dumped.memory)
        for one, two, three, copy, dumped in zip(
            attested, provisioned, planned, copies, pre_dumped, strict=True
        )
    ]


def cutovers(sessions: Sequence[Session], ready: Sequence[Ready]) -> list[Cutover]:
    """Make a cutover for each of them. UnusableInput if two members of a group are the same container."""
    ids = {one.plan.container["Id"] for one in ready}
    if len(ids) < len(ready):
        raise UnusableInput("two of the names are the same container", remedy="Name each container once")
    members = {session.migration: session.request.container for session in sessions}
    together = Together(members) if len(members) > 1 else None
    made = []
    for session, given in zip(sessions, ready, strict=True):
        cutover = Cutover(session.request, session.parties, session.journal, given, together)
        session.decision = cutover
        made.append(cutover)
    return made


def outcomes(cutovers: Sequence[Cutover], end: Callable[[Cutover], object]) -> list[Moved]:
    """Call `end` for each of a group, even if others fail. Returns the results; raises `first_failure`."""
    failures: dict[Cutover, SealiftError] = {}
    for cutover in cutovers:
        try:
            end(cutover)
        except SealiftError as failed:
            failures[cutover] = failed
    if failures:
        raise first_failure(failures)
    return [cutover.moved() for cutover in cutovers]


def watch(cutover: Cutover) -> None:
    """Wait for the end of a cutover that has begun, and report its steps. Raises what ended it early."""
    for step in CUTOVER:
        cutover.wait(step)
        cutover.record(step)


def first_failure(failures: dict[Cutover, SealiftError]) -> SealiftError:
    """The failure in a group from which the others followed."""

    def when(cutover: Cutover) -> float:
        return float("inf") if cutover.failed_ns is None else cutover.failed_ns

    return failures[min(failures, key=when)]


def attest(session: Session) -> Attested:
    """Verify the destination's identity, before anything but a nonce is sent to it. A rejection is final."""
    request = session.request
    with _timed(session, Step.ATTEST) as timed:
        record, known, name = None, session.inventory, request.destination
        if request.options.evidence == "none":
            connection = ssh.connect(name, known.host(name))
            timed.note = "none, as asked for: only its pinned SSH key identifies this host"
        else:
            record, connection = attestation.attest(known, name, keystore=session.keystore)
            known = known.known_as(name, host_key=record.ssh_host_key, wireguard_key=record.wireguard_key)
            kind = "EMULATED" if record.emulated else record.generation
            timed.note = f"{record.kind}, {kind}: {record.checks} checks hold"
        session.arrive(connection)
        session.parties.source  # noqa: B018 - raises if it could not be opened
    return Attested(timed.record(), known, record, connection)


def provision_keys(session: Session, attested: Attested) -> Provisioned:
    """Release keys to the verified destination, tell the other hosts its key, and start its agents."""
    with _timed(session, Step.PROVISION_KEYS) as timed:
        timed.note = "none: without evidence no key is released"
        known, record = attested.inventory, attested.record
        if record is not None:
            timed.note = provision.provision(known, record, attested.connection, session.keystore)
            others = [session.parties.source.side.connection]
            provision.introduce(known, session.request.destination, session.parties.gateway, others)
        session.open_destination()
    return Provisioned(timed.record(), known, record)


def preflight(session: Session, destination: Provisioned) -> Planned:
    """Find all reasons against the migration before anything is changed. Refused has all of them."""
    with _timed(session, Step.PREFLIGHT) as timed:
        plan = checks.preflight(session.request, destination.inventory, session.parties)
        session.journal.found(plan.container["Id"], plan.address)
        timed.note = "; ".join((f"{plan.choice.strategy}: {plan.choice.why}", *plan.warnings))
    return Planned(timed.record(), plan)


def sync(session: Session, destination: Provisioned, plan: Plan) -> Copy:
    """Send the image, create the counterpart, send the files."""
    with _timed(session, Step.SYNC) as timed:
        parts = Sync(session.request, destination.inventory, session.parties, session.journal, plan)
        image_bytes = parts.send_image()
        connected = parts.connect(parts.create_copy())
        file_bytes, log = parts.send_files(connected.log)
        timed.sent_bytes = image_bytes + file_bytes
    return Copy(
        step=timed.record(),
        container=session.journal.traces.copy or "",
        descriptors=connected.descriptors,
        log=log,
        image_bytes=image_bytes,
        file_bytes=file_bytes,
    )


def pre_dump(session: Session, plan: Plan) -> PreDumped:
    """Send pages ahead in rounds if the kernel tracks dirty ones, or prepare those of a post-copy."""
    with _timed(session, Step.PRE_DUMP) as timed:
        parties = session.parties
        rounds = Rounds(session.request, plan, parties.source.agent, parties.destination.agent)
        gathered_bytes = rounds.prepare()
        memory = rounds.result()
        pre_copy = plan.choice.strategy == Strategy.PRE_COPY
        timed.note = f"{len(memory.rounds)} rounds" if pre_copy else f"none: {plan.choice.why}"
        if gathered_bytes:
            timed.note += f"; {gathered_bytes >> 20} MiB in huge pages, for a shorter dump"
        timed.sent_bytes = sum(made.sent_bytes for made in memory.rounds)
    return PreDumped(timed.record(), memory)


def finish(session: Session, ready: Ready) -> Finished:
    """After the commit, check the destination's container, and remove the source's copy."""
    with _timed(session, Step.FINISH) as timed:
        timed.note, fetched_bytes, waited = ending.finish(session, ready)
        warnings = ending.check_routes(session, ready.plan.address)
    return Finished(timed.record(), fetched_bytes, warnings, waited)


TRIED_AGAIN: tuple[Callable[..., object], ...] = (attest, provision_keys, preflight)
"""The steps that are tried again if a host does not answer. A second run does the same as the first."""


class InTurn:
    """Runs each step here, one member after the other, once."""

    def in_turn(self, step: Callable[[*Inputs], Result], members: Iterable[tuple[*Inputs]]) -> list[Result]:
        """See `Runner`."""
        return [step(*inputs) for inputs in members]

    at_once = in_turn

    def cut_over(self, cutovers: Sequence[Cutover]) -> list[Moved]:
        """See `Runner`. It is for a single migration, since the members of a group have to begin at once."""
        for cutover in cutovers:
            cutover.begin()
        return outcomes(cutovers, watch)


@dataclass
class _Timed:
    """A running step. It may set `sent_bytes` and `note`."""

    step: Step
    started: datetime
    started_ns: int
    took_ms: float = 0.0
    sent_bytes: int = 0
    note: str = ""

    def record(self) -> StepRecord:
        """The record of a step that has ended."""
        return StepRecord(
            step=self.step,
            started=self.started,
            duration_ms=self.took_ms,
            sent_bytes=self.sent_bytes,
            note=self.note,
        )


@contextmanager
def _timed(session: Session, step: Step) -> Iterator[_Timed]:
    """Measure the time of a step and report it. Its errors get its name."""
    container = session.request.container
    progress.tell_began(container, step)
    timed = _Timed(step, datetime.now(UTC), time.monotonic_ns())
    try:
        yield timed
    except SealiftError as error:
        error.step = error.step or step
        raise
    timed.took_ms = (time.monotonic_ns() - timed.started_ns) / 1e6
    progress.tell_ended(container, timed.record())
