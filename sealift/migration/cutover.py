"""The cutover from the controller's side: both agents armed, one word, and then only listening.

The phases and their times come from the source's agent; nothing waits for whoever listens here.
"""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from sealift.errors import CommandFailed, HostUnreachable, MigrationFailed, OutcomeUnknown, SealiftError
from sealift.migration import predump, progress, sync
from sealift.model import Step, StepRecord, Strategy
from sealift.network.wireguard import BRIDGE
from sealift_agent.protocol import (
    ArmDestination,
    ArmSource,
    AtWork,
    Began,
    CallOff,
    CheckPeer,
    Decide,
    Decider,
    DestinationDecided,
    End,
    Event,
    Go,
    Happened,
    ImagesSent,
    LastDumped,
    LogPlace,
    Move,
    Outcome,
    ReadPages,
    Received,
    RestartPolicy,
    Restored,
    Settled,
    SourceDecided,
    Undecided,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.migration.session import Session

Kind = TypeVar("Kind", bound=Event)

PHASES = {
    Step.FINAL_DUMP: ("go", "dumped"),
    Step.TRANSFER: ("dumped", "received"),
    Step.RESTORE: ("received", "restored"),
    Step.NETWORK_SWITCH: ("restored", "committed"),
}
"""Each step of the cutover with the events that begin and end it."""

COMMITTED = PHASES[Step.NETWORK_SWITCH][1]
AT_DESTINATION = {Step.RESTORE, Step.NETWORK_SWITCH}
"""What fails in these the source only passes on."""

CUTOVER_TIMEOUT_S = 600
TOGETHER_TIMEOUT_S = 60
REVIVE_AGAIN_S, ASK_AGAIN_S = 5, 1
TELL_TIMEOUT_S = 20
SILENT_S = 10
"""A source that is at work in the freeze says so every other second (`wire.ALIVE_S`). Silent for so long, it hangs."""

LOG_BEHIND_BYTES = 8 << 20
"""So much of a log is copied again before the hosts are armed: to print it again would take longer."""

GATEWAY_BACK_S = 120
"""How long a gateway that does not say what was decided is asked again."""

KEY_BYTES = 32
"""Of the key that proves what the gateway is asked and answers (`sealift_agent.authenticated`)."""

UNKNOWN = "unknown"
"""This side's word for an outcome that nobody has."""

ATTEND_TIMEOUT_S = 10
STILL_BEFORE_S, STILL_AFTER_S = 0.5, 0.5
"""How long watchers may take to come, and how long there is silence before the hosts are armed and after the commit,
when the container asks for its first pages: what a scheduler notes of its task runs would take processors from both."""


class Cutover:
    """`arm` gets both hosts ready; `begin` says go; `wait` waits for the end, and tells of one step of it.

    `members` are the migrations that have one decision, this one among them, each with its container; `together` is
    where they wait for each other before they begin.
    """

    def __init__(
        self,
        session: Session,
        members: Mapping[str, str] | None = None,
        together: threading.Barrier | None = None,
    ) -> None:
        self._members = list(members or {})
        self.group = list((members or {}).values())
        self._together = together
        self.failed_ns: int | None = None
        self._session = session
        self._events: dict[str, Happened] = {}
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._present, self._watched = 0, False
        self._failure: SealiftError | None = None
        self._outcome = UNKNOWN
        self._began = datetime.now(UTC)
        self._beginning = threading.Lock()
        self._armed = self._abandoned = False
        self._heard = time.monotonic()

    def arm(self) -> None:
        """Get the gateway and both hosts ready: from then on they need only the word."""
        session, found = self._session, self._session.found
        inventory, request = session.inventory, session.request
        token, key = secrets.token_hex(16), secrets.token_hex(KEY_BYTES)
        move = Move(
            migration=session.migration,
            address=found.address,
            origin=inventory.host(request.source).wireguard_key or "",
            peer=inventory.host(request.destination).wireguard_key or "",
            host=request.destination,
        )
        where = str(inventory.gateway.tunnel_address)
        session.gateway.call(CheckPeer(move.peer))
        found.restart_policy = policy = session.sender.call(RestartPolicy(found.container["Id"]))
        session.note("armed", restart_policy=policy)
        asked = Decide(where, token, key, move, self._members)
        port = session.gateway.call(asked)
        self._decide = replace(asked, port=port)
        gateway = Decider(where, port, token, key, group=bool(self._members))
        sync.send_log(session, LOG_BEHIND_BYTES)
        post_copy = found.choice.strategy == Strategy.POST_COPY
        armed = session.receiver.call(
            ArmDestination(
                container=found.copy,
                gateway=gateway,
                address=found.address,
                bridge=BRIDGE,
                log=LogPlace(found.log, found.log_marked) if found.log else None,
                descriptors=found.descriptors,
                lazy=post_copy or found.lazy_restore,
                restart_policy=policy,
            )
        )
        predump.catch_up(session)
        pages = session.receiver.call(ReadPages()) if post_copy else session.start_page_server("final")
        session.sender.call(
            ArmSource(
                gateway=gateway,
                address=found.address,
                bridge=BRIDGE,
                pages_port=pages,
                external_network=armed.external_network,
                post_copy=post_copy,
                restart_policy=policy,
            )
        )
        self._armed = True

    def attend(self) -> None:
        """Be there before it begins: whoever watches by a task run has it started by then."""
        with self._changed:
            self._present += 1
            self._changed.notify_all()

    def begin(self, watchers: int = 0) -> None:
        """Arm, unless that was done, and say go, with the others of a group. What follows is between the hosts.

        So many `watchers` are waited for before; none is needed. Between arming and the word nothing is waited for but
        the group: what lies idle meanwhile takes some of the freeze to get going again. MigrationFailed if one of the
        group is missing.
        """
        self._watched = watchers > 0
        if watchers:
            with self._changed:
                self._changed.wait_for(lambda: self._present >= watchers, ATTEND_TIMEOUT_S)
            time.sleep(STILL_BEFORE_S)
        with self._beginning:
            try:
                self._get_ready()
            except SealiftError as failed:
                failed.step = failed.step or Step.FINAL_DUMP
                self._failure = failed
                self._end()
                raise
            self._thread = threading.Thread(target=self._go, daemon=True, name="cutover")
            self._thread.start()

    def _get_ready(self) -> None:
        self._check_wanted()
        try:
            if not self._armed:
                self.arm()
        except SealiftError:
            self.failed_ns = time.monotonic_ns()
            if self._together is not None:
                self._together.abort()
            raise
        self._check_wanted()
        try:
            if self._together is not None:
                self._together.wait(TOGETHER_TIMEOUT_S)
        except threading.BrokenBarrierError as alone:
            raise MigrationFailed(
                "another container of the group could not begin; nothing was frozen",
                host=self._session.request.source,
                remedy="Put its cause right and migrate the group again",
            ) from alone

    def _check_wanted(self) -> None:
        if self._abandoned:
            raise MigrationFailed(
                "it was ended before anything was frozen",
                host=self._session.request.source,
                remedy="Migrate again",
            )

    def _miss_source(self) -> None:
        """An agent that hangs holds its container frozen: another one takes its place."""
        while not self._over.wait(1):
            if time.monotonic() - self._heard > SILENT_S:
                self._session.sender.give_up()
                return

    def _go(self) -> None:
        self._heard = time.monotonic()
        threading.Thread(target=self._miss_source, daemon=True, name="silence").start()
        try:
            said = self._session.sender.call(Go(), timeout_s=CUTOVER_TIMEOUT_S)
            if said == Outcome.UNDECIDED:
                self._failure = self._decide_for(self._session.request.source)
            else:
                self._outcome = said.value
        except CommandFailed as failed:
            self._failure = self._failed(failed)
        except HostUnreachable as lost:
            self._failure = self._ask_gateway(lost.message, lost.host)
        finally:
            if self._failure is not None:
                self.failed_ns = time.monotonic_ns()
            if self._outcome == "committed" and COMMITTED not in self._events:
                self._tell_destination()
            self._end()

    def _failed(self, failed: CommandFailed) -> SealiftError | None:
        """The source's agent says that it failed. Rolled back is only what it says so of, or the gateway does."""
        settled = self._said(Settled)
        if settled is None or settled.outcome is not Outcome.ROLLED_BACK:
            return self._ask_gateway(failed.message, failed.host)
        self._outcome = "rolled back"
        there = failed.step in AT_DESTINATION
        return MigrationFailed(
            f"{failed.message}; the migration was rolled back and the container goes on at {failed.host}",
            host=self._session.request.destination if there else failed.host,
            step=failed.step,
            remedy="Put the cause right and migrate again",
        )

    def _decide_for(self, source: str) -> SealiftError | None:
        """The source can't reach the gateway, and its copy is frozen: this side can, and tells it what was decided."""
        failure = self._ask_gateway("it can't reach the gateway", source)
        if self._outcome != UNKNOWN:
            with suppress(SealiftError):  # one that is gone by now is told by `recover`
                self._session.sender.call(SourceDecided(Outcome(self._outcome)), timeout_s=TELL_TIMEOUT_S)
        return failure

    def _end(self) -> None:
        self._over.set()
        with self._changed:
            self._changed.notify_all()

    def _tell_destination(self) -> None:
        """It is decided, and not from the destination that this is known: it may still ask for what it can't hear.

        Nor can it tell the gateway then to hold nothing any more.
        """
        with suppress(SealiftError):  # one that is gone is missed by `finish`
            self._session.receiver.call(DestinationDecided(Outcome(self._outcome)), timeout_s=TELL_TIMEOUT_S)
        with suppress(SealiftError):
            self._session.gateway.call(End(), timeout_s=TELL_TIMEOUT_S)

    def _ask_gateway(self, why: str, host: str | None) -> SealiftError | None:
        """The source does not know: the gateway decides, against the migration if nobody has asked for it yet."""
        session = self._session
        deadline = time.monotonic() + GATEWAY_BACK_S
        while self._outcome == UNKNOWN:
            try:
                said = session.gateway.call(CallOff(session.migration), timeout_s=TELL_TIMEOUT_S)
                self._outcome = said.value
            except SealiftError as silent:
                if time.monotonic() > deadline:
                    return OutcomeUnknown(
                        f"lost during the cutover ({why}), and the gateway can't be asked ({silent})",
                        host=host,
                        remedy="The two hosts settle it between them; `sealift recover` once they are back",
                    )
                # has its agent started again
                self.hear(Happened(time.monotonic_ns(), Undecided(str(silent))))
                time.sleep(ASK_AGAIN_S)
        if self._outcome == "committed":
            return None
        return MigrationFailed(
            f"{why}; the migration was called off, and the container goes on there",
            host=host,
            step=Step.FINAL_DUMP,
            remedy="Put the cause right and migrate again",
        )

    def hear(self, happened: Happened) -> None:
        """An event from the source's agent."""
        event = happened.event
        with self._changed:
            self._heard = time.monotonic()
            if isinstance(event, AtWork):
                return
            if isinstance(event, Began):
                self._began = datetime.now(UTC)
            if isinstance(event, Undecided) and self._said(Undecided) is None:
                threading.Thread(target=self._revive_gateway, daemon=True, name="gateway").start()
            self._events[event.NAME] = happened
            self._changed.notify_all()

    def _revive_gateway(self) -> None:
        """The hosts can't reach the gateway's agent: start it again, at the same door, until they have an answer."""
        while not self._over.is_set():
            with suppress(SealiftError):
                self._session.revive_gateway()
                self._session.gateway.call(self._decide)
            self._over.wait(REVIVE_AGAIN_S)

    def wait(self, step: Step) -> StepRecord:
        """Wait for the commit, or another end, and record a step. Raises what ended the cutover if it got not so far.

        Not for the step's own end: a task run that ends in the freeze is noted in the freeze, at its cost.
        """
        begin, end = PHASES[step]
        progress.tell_began(self._session.request.container, step)
        with self._changed:
            self._changed.wait_for(
                lambda: COMMITTED in self._events or self._over.is_set(), CUTOVER_TIMEOUT_S
            )
            if end not in self._events and self._failure is not None:
                raise self._failure
        if self._watched:
            time.sleep(STILL_AFTER_S)
        record = StepRecord(
            step=step,
            started=self._began + timedelta(milliseconds=self.between_ms("go", begin)),
            duration_ms=self.between_ms(begin, end),
            sent_bytes=self._sent_bytes(step),
        )
        self._session.record(record)
        return record

    def settle(self) -> str:
        """Wait for the end of a cutover that has begun; the outcome. One that has not will not.

        "unknown" if it does not end, or nobody could be asked: then neither copy may be touched.
        """
        self._abandoned = True
        if self._together is not None:
            self._together.abort()  # those who have passed it don't mind
        with self._beginning:
            if self._thread is None:
                return "rolled back"
        return self._outcome if self._over.wait(CUTOVER_TIMEOUT_S) else UNKNOWN

    def between_ms(self, first: str, last: str) -> float:
        """Time between two events, in milliseconds; 0 where one is missing."""
        try:
            return float(self._events[last].at_ns - self._events[first].at_ns) / 1e6
        except KeyError:
            return 0.0

    @property
    def dumped(self) -> LastDumped:
        """What the source said of the last dump; zeros if it has not come to that. So are the others below."""
        return self._said(LastDumped) or LastDumped(0)

    @property
    def sent(self) -> ImagesSent:
        """What it said of the images."""
        return self._said(ImagesSent) or ImagesSent(0)

    @property
    def received(self) -> Received:
        """What the destination said of the images."""
        return self._said(Received) or Received()

    @property
    def restored(self) -> Restored:
        """What it said of the restore."""
        return self._said(Restored) or Restored()

    def _said(self, kind: type[Kind]) -> Kind | None:
        happened = self._events.get(kind.NAME)
        return happened.event if happened is not None and isinstance(happened.event, kind) else None

    def _sent_bytes(self, step: Step) -> int:
        if step == Step.FINAL_DUMP:
            return self.dumped.file_bytes + self.received.page_bytes
        return self.sent.metadata_bytes if step == Step.TRANSFER else 0
