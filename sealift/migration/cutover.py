"""The cutover from the controller's side: both agents armed, one word, and then only listening.

The phases and their times come from the source's agent; nothing waits for whoever listens here.

States: made, armed (`arm`), begun (`begin`), over. From "begun" on the two hosts and the gateway need nobody: what this
side still does is to hear the outcome, and to help where one of them can't reach the gateway.
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
"""What fails in these the source only passes on."""

CUTOVER_TIMEOUT_S = 600
TOGETHER_TIMEOUT_S = 60
REVIVE_AGAIN_S, ASK_AGAIN_S = 5, 1
TELL_TIMEOUT_S = 20
SILENT_S = 10
"""A source that is at work in the freeze says so every other second (`wire.ALIVE_S`). Silent for so long, it hangs."""

GATEWAY_BACK_S = 120
"""How long a gateway that does not say what was decided is asked again."""


class Together:
    """The migrations of a group: they wait for each other before they begin, and have one decision.

    `members` maps each migration to its container.
    """

    def __init__(self, members: dict[str, str]) -> None:
        self.members = dict(members)
        self._barrier = threading.Barrier(len(members))

    def wait(self, host: str) -> None:
        """Until all of them are armed. MigrationFailed if one of them is missing: nothing was frozen."""
        try:
            self._barrier.wait(TOGETHER_TIMEOUT_S)
        except threading.BrokenBarrierError as alone:
            raise MigrationFailed(
                "another container of the group could not begin; nothing was frozen",
                host=host,
                remedy="The reason of that one is reported. Put it right, then migrate the group again",
            ) from alone

    def abort(self) -> None:
        """One does not begin, so the others don't. Those who have passed are not affected."""
        self._barrier.abort()


class Cutover:
    """`arm` gets both hosts ready; `begin` says go; `wait` waits for the end, and `record` tells of one step of it."""

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
        """The containers that have one decision with this one, itself included. Empty if it is alone."""
        return tuple(self._together.members.values()) if self._together is not None else ()

    def arm(self) -> None:
        """Get the gateway and both hosts ready: from then on they need only the word."""
        members = tuple(self._together.members) if self._together is not None else ()
        self._armed = arm(self.request, self._parties, self._journal, self._ready, members)

    def begin(self) -> None:
        """Arm, unless that was done, and say go, with the others of a group. What follows is between the hosts.

        Between arming and the word nothing is waited for but the group: what lies idle meanwhile takes some of the
        freeze to get going again. MigrationFailed if one of the group is missing.
        """
        with self._beginning:
            try:
                self._get_ready()
            except (
                BaseException
            ) as failed:  # whatever it is: nobody is to wait for a cutover that has not begun
                if isinstance(failed, SealiftError):
                    failed.step = failed.step or Step.FINAL_DUMP
                self._failure = failed
                self._end()
                raise
            self._thread = threading.Thread(target=self._go, daemon=True, name="cutover")
            self._thread.start()

    def wait(self, step: Step) -> None:
        """Tell that a step is under way, and wait for the commit, or another end.

        Not for the step's own end: a task run that ended in the freeze would be noted in the freeze, at its cost.
        """
        progress.tell_began(self.request.container, step)
        self.heard.wait_for(lambda: Committed in self.heard or self._over.is_set(), CUTOVER_TIMEOUT_S)

    def has_reached(self, step: Step) -> bool:
        """Whether a step has ended well, after `wait`. Of a commit that only the gateway told of, all have."""
        return self.heard.has_ended(step) or self._outcome is Outcome.COMMITTED

    def record(self, step: Step) -> StepRecord:
        """Tell of a step, after `wait`. Returns its record; raises what ended the cutover if it did not get so far."""
        self._check(step)
        record = self.heard.record(step)
        progress.tell_ended(self.request.container, record)
        return record

    def moved(self) -> Moved:
        """The result, once it has committed. Raises what ended it otherwise."""
        for step in CUTOVER:
            self._check(step)
        if self._armed is None:
            raise MigrationFailed("the cutover has not begun", step=Step.FINAL_DUMP, remedy="Call `begin`")
        records = tuple(self.heard.record(step) for step in CUTOVER)
        return Moved(records, self._armed.memory, self.heard, self.group)

    def _check(self, step: Step) -> None:
        """Raise what ended the cutover before that step was over."""
        if not self.has_reached(step):
            raise self._failure or OutcomeUnknown(
                f"the cutover has not come to an end in {CUTOVER_TIMEOUT_S} s",
                host=self.request.source,
                step=step,
                remedy="The two hosts settle it between them; `sealift recover` finds out",
            )

    def settle(self) -> Outcome | None:
        """Wait for the end of a cutover that has begun; the outcome. One that has not begun will not begin any more.

        None if it does not end, or nobody could be asked: then neither copy may be touched.
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
        except BaseException as unexpected:  # noqa: BLE001 - whoever waits raises it
            self._failure = unexpected
        finally:
            if self._failure is not None:
                self.failed_ns = time.monotonic_ns()
            if self._outcome is Outcome.COMMITTED and Committed not in self.heard:
                self._tell_destination()
            self._end()

    def _miss_source(self) -> None:
        """An agent that hangs holds its container frozen: another one takes its place."""
        while not self._over.wait(1):
            if time.monotonic() - self._last_heard > SILENT_S:
                self._parties.source.agent.give_up()
                return

    def _failed(self, failed: CommandFailed) -> SealiftError | None:
        """The source's agent says that it failed. Rolled back is only what it says so of, or the gateway does."""
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
        """The source can't reach the gateway, and its copy is frozen: this side can, and tells it what was decided."""
        failure = self._ask_gateway("it can't reach the gateway", self.request.source)
        if self._outcome is not None:
            with suppress(SealiftError):  # one that is gone by now is told by `recover`
                self._parties.source.agent.call(SourceDecided(self._outcome), timeout_s=TELL_TIMEOUT_S)
        return failure

    def _ask_gateway(self, why: str, host: str | None) -> SealiftError | None:
        """The source does not know: the gateway decides, against the migration if nobody has asked for it yet."""
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
                        remedy="The two hosts settle it between them; `sealift recover` once they are back",
                    )
                # has its agent started again
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
        """It is decided, and not from the destination that this is known: it may still ask for what it can't hear.

        Nor can it tell the gateway then to hold nothing any more.
        """
        with suppress(SealiftError):  # one that is gone is missed by `finish`
            decided = DestinationDecided(Outcome.COMMITTED)
            self._parties.destination.agent.call(decided, timeout_s=TELL_TIMEOUT_S)
        with suppress(SealiftError):
            self._parties.gateway.call(End(), timeout_s=TELL_TIMEOUT_S)

    def _revive_gateway(self) -> None:
        """The hosts can't reach the gateway's agent: start it again, at the same port, until they have an answer."""
        while not self._over.is_set() and self._armed is not None:
            with suppress(SealiftError):
                self._parties.gateway.revive(self._journal.migration, self._ready.plan.address)
                self._parties.gateway.call(self._armed.decide)
            self._over.wait(REVIVE_AGAIN_S)

    def _end(self) -> None:
        self._over.set()
        self.heard.wake()
