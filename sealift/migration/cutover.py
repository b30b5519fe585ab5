"""The controller's side of the cutover: arm both agents, give one order, and then only listen.

The source's agent reports phases and times. The hosts do not wait for a listener here.

States: made, armed (`arm`), begun (`begin`), over. After `begin` the two hosts and the gateway need no controller. This
side receives the outcome, and helps if a host can't reach the gateway.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed, HostUnreachable, MigrationFailed, OutcomeUnknown, SealiftError
from sealift.migration import progress
from sealift.migration.arming import Armed, arm
from sealift.migration.causes import explain
from sealift.migration.heard import Heard
from sealift.migration.results import Moved
from sealift.model import CUTOVER, Step, StepRecord
from sealift_agent.protocol import (
    AtWork,
    CallOff,
    Committed,
    DestinationDecided,
    End,
    Go,
    Happened,
    Outcome,
    Settled,
    SourceDecided,
    Undecided,
)

if TYPE_CHECKING:
    from sealift.migration.journal import Journal
    from sealift.migration.parties import Parties
    from sealift.migration.request import Request
    from sealift.migration.results import Ready

AT_DESTINATION = {Step.RESTORE, Step.NETWORK_SWITCH}
"""The source only reports failures in these steps. They happened at the destination."""

CUTOVER_TIMEOUT_S = 600
TOGETHER_TIMEOUT_S = 60
REVIVE_AGAIN_S, ASK_AGAIN_S = 5, 1
TELL_TIMEOUT_S = 20
SILENT_S = 10
"""Seconds. In the freeze a working source sends a message every two seconds (`wire.ALIVE_S`). After this time it
counts as hanging."""

GATEWAY_BACK_S = 120
"""Seconds for which a gateway that does not tell the decision is asked again."""


class Together:
    """The migrations of a group. They wait for each other before they begin, and have one decision.

    `members` maps each migration to its container.
    """

    def __init__(self, members: dict[str, str]) -> None:
        self.members = dict(members)
        self._barrier = threading.Barrier(len(members))

    def wait(self, host: str) -> None:
        """Wait until all of them are armed. MigrationFailed if one of them is missing; then nothing was frozen."""
        try:
            self._barrier.wait(TOGETHER_TIMEOUT_S)
        except threading.BrokenBarrierError as alone:
            raise MigrationFailed(
                "another container of the group could not begin; nothing was frozen",
                host=host,
                remedy="Its own report has the reason. Correct it, then migrate the group again",
            ) from alone

    def abort(self) -> None:
        """One does not begin, so the others must not begin. Those that have begun are not affected."""
        self._barrier.abort()


class Cutover:
    """`arm` gets both hosts ready, `begin` starts, `wait` waits for the end, and `record` reports one step."""

    def __init__(
        self,
        request: Request,
        parties: Parties,
        journal: Journal,
        ready: Ready,
        together: Together | None = None,
    ) -> None:
        self.request = request
        self.failed_ns: int | None = None
        self.heard = Heard()
        self._parties = parties
        self._journal = journal
        self._ready = ready
        self._together = together
        self._armed: Armed | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._outcome: Outcome | None = None
        self._beginning = threading.Lock()
        self._abandoned = False
        self._last_heard = time.monotonic()

    @property
    def group(self) -> tuple[str, ...]:
        """The containers that have one decision, including this one. Empty if there is only one."""
        return tuple(self._together.members.values()) if self._together is not None else ()

    def arm(self) -> None:
        """Get the gateway and both hosts ready. After that they need only the order `go`."""
        members = tuple(self._together.members) if self._together is not None else ()
        self._armed = arm(self.request, self._parties, self._journal, self._ready, members)

    def begin(self) -> None:
        """Arm if that was not done, and order `go`, together with the others of a group. The rest is between the hosts.

        Between arming and `go` it waits only for the group, since idle programs take longer in the freeze.
        MigrationFailed if a member of the group is missing.
        """
        with self._beginning:
            try:
                self._get_ready()
            except BaseException as failed:  # on any error nobody may wait for a cutover that has not begun
                if isinstance(failed, SealiftError):
                    failed.step = failed.step or Step.FINAL_DUMP
                self._failure = failed
                self._end()
                raise
            self._thread = threading.Thread(target=self._go, daemon=True, name="cutover")
            self._thread.start()

    def wait(self, step: Step) -> None:
        """Report that a step runs, and wait for the commit, or another end.

        It does not wait for the end of the step: a task run that ends in the freeze would be recorded in the freeze,
        and would take time from it.
        """
        progress.tell_began(self.request.container, step)
        self.heard.wait_for(lambda: Committed in self.heard or self._over.is_set(), CUTOVER_TIMEOUT_S)

    def has_reached(self, step: Step) -> bool:
        """Whether a step has ended well, after `wait`. If only the gateway told of the commit, all steps have."""
        return self.heard.has_ended(step) or self._outcome is Outcome.COMMITTED

    def record(self, step: Step) -> StepRecord:
        """Report a step, after `wait`. Returns its record. Raises the cutover's failure if it did not get so far."""
        self._check(step)
        record = self.heard.record(step)
        progress.tell_ended(self.request.container, record)
        return record

    def moved(self) -> Moved:
        """The result of a committed cutover. Otherwise raises what ended it."""
        for step in CUTOVER:
            self._check(step)
        if self._armed is None:
            raise MigrationFailed("the cutover has not begun", step=Step.FINAL_DUMP, remedy="Call `begin`")
        records = tuple(self.heard.record(step) for step in CUTOVER)
        return Moved(records, self._armed.memory, self.heard, self.group)

    def _check(self, step: Step) -> None:
        """Raise the cutover's failure, if it came before that step was over."""
        if not self.has_reached(step):
            raise self._failure or OutcomeUnknown(
                f"the cutover has not ended in {CUTOVER_TIMEOUT_S} s",
                host=self.request.source,
                step=step,
                remedy="The two hosts end it without a controller; `sealift recover` shows how",
            )

    def settle(self) -> Outcome | None:
        """Wait for the end of a cutover that has begun. Returns the outcome.

        One that has not begun can't begin any more.

        None if it does not end, or if nobody could be asked. Then neither copy may be changed.
        """
        self._abandoned = True
        if self._together is not None:
            self._together.abort()
        with self._beginning:
            if self._thread is None:
                return Outcome.ROLLED_BACK
        return self._outcome if self._over.wait(CUTOVER_TIMEOUT_S) else None

    def hear(self, happened: Happened) -> None:
        """An event from the source's agent."""
        self._last_heard = time.monotonic()
        if isinstance(happened.event, AtWork):
            return
        first = type(happened.event) not in self.heard
        self.heard.keep(happened)
        if isinstance(happened.event, Undecided) and first:
            threading.Thread(target=self._revive_gateway, daemon=True, name="gateway").start()
        progress.tell_heard(self.request.container, happened.event.NAME)

    def _get_ready(self) -> None:
        self._check_wanted()
        try:
            if self._armed is None:
                self.arm()
        except BaseException:
            self.failed_ns = time.monotonic_ns()
            if self._together is not None:
                self._together.abort()
            raise
        self._check_wanted()
        if self._together is not None:
            self._together.wait(self.request.source)

    def _check_wanted(self) -> None:
        if self._abandoned:
            raise MigrationFailed(
                "it was ended before anything was frozen",
                host=self.request.source,
                remedy="Migrate again",
            )

    def _go(self) -> None:
        self._last_heard = time.monotonic()
        threading.Thread(target=self._miss_source, daemon=True, name="silence").start()
        source = self._parties.source
        try:
            said = source.agent.call(Go(), timeout_s=CUTOVER_TIMEOUT_S)
            if said is Outcome.UNDECIDED:
                self._failure = self._decide_for_source()
            else:
                self._outcome = said
        except CommandFailed as failed:
            self._failure = self._failed(failed)
        except HostUnreachable as lost:
            self._failure = self._ask_gateway(lost.message, lost.host)
        except BaseException as unexpected:  # noqa: BLE001 - the waiting threads raise it
            self._failure = unexpected
        finally:
            if self._failure is not None:
                self.failed_ns = time.monotonic_ns()
            if self._outcome is Outcome.COMMITTED and Committed not in self.heard:
                self._tell_destination()
            self._end()

    def _miss_source(self) -> None:
        """Replace a hanging agent of the source, since it keeps its container frozen."""
        while not self._over.wait(1):
            if time.monotonic() - self._last_heard > SILENT_S:
                self._parties.source.agent.give_up()
                return

    def _failed(self, failed: CommandFailed) -> SealiftError | None:
        """Handle an error of the source's agent. It is rolled back only if the agent or the gateway says so."""
        settled = self.heard.said(Settled)
        if settled is None or settled.outcome is not Outcome.ROLLED_BACK:
            return self._ask_gateway(failed.message, failed.host)
        self._outcome = Outcome.ROLLED_BACK
        host = self.request.destination if failed.step in AT_DESTINATION else self.request.source
        why, remedy = explain(failed.message, host, "Migrate again; if it fails again,")
        return MigrationFailed(
            f"{why}; the migration was rolled back and the container goes on at {failed.host}",
            host=host,
            step=failed.step,
            remedy=remedy,
        )

    def _decide_for_source(self) -> SealiftError | None:
        """The source can't reach the gateway, and its copy is frozen.

        Ask the gateway here, and tell the source the decision.
        """
        failure = self._ask_gateway("it can't reach the gateway", self.request.source)
        if self._outcome is not None:
            with suppress(SealiftError):  # `recover` tells a source that is lost by now
                self._parties.source.agent.call(SourceDecided(self._outcome), timeout_s=TELL_TIMEOUT_S)
        return failure

    def _ask_gateway(self, why: str, host: str | None) -> SealiftError | None:
        """Ask the gateway, since the source does not know the outcome.

        If it is still open, the gateway calls the migration off.
        """
        deadline = time.monotonic() + GATEWAY_BACK_S
        while self._outcome is None:
            try:
                order = CallOff(self._journal.migration)
                self._outcome = self._parties.gateway.call(order, timeout_s=TELL_TIMEOUT_S)
            except SealiftError as silent:
                if time.monotonic() > deadline:
                    return OutcomeUnknown(
                        f"lost during the cutover ({why}), and the gateway can't be asked ({silent})",
                        host=host,
                        remedy="The two hosts end it without a controller; run `sealift recover` when they are back",
                    )
                # starts the gateway's agent again
                self.hear(Happened(time.monotonic_ns(), Undecided(str(silent))))
                time.sleep(ASK_AGAIN_S)
        if self._outcome is Outcome.COMMITTED:
            return None
        return MigrationFailed(
            f"{why}; the migration was called off, and the container goes on there",
            host=host,
            step=Step.FINAL_DUMP,
            remedy="Migrate again once that host and its network are well",
        )

    def _tell_destination(self) -> None:
        """Tell the destination of a commit that is known from elsewhere, since it may still ask and get no answer.

        It could not tell the gateway to release packets either, so this does.
        """
        with suppress(SealiftError):  # `finish` notices a destination that is lost
            decided = DestinationDecided(Outcome.COMMITTED)
            self._parties.destination.agent.call(decided, timeout_s=TELL_TIMEOUT_S)
        with suppress(SealiftError):
            self._parties.gateway.call(End(), timeout_s=TELL_TIMEOUT_S)

    def _revive_gateway(self) -> None:
        """Start the gateway's agent again, at the same port, until the hosts that can't reach it have an answer."""
        while not self._over.is_set() and self._armed is not None:
            with suppress(SealiftError):
                self._parties.gateway.revive(self._journal.migration, self._ready.plan.address)
                self._parties.gateway.call(self._armed.decide)
            self._over.wait(REVIVE_AGAIN_S)

    def _end(self) -> None:
        self._over.set()
        self.heard.wake()
