"""The end of a session: both hosts get the decision, and remove what the migration has left.

Before the commit the source's container runs on. After the commit the source's copy is removed, whatever ended the
session. What fails now stays in the gateway's journal, for `sealift recover`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed, HostUnreachable, OutcomeUnknown, SealiftError
from sealift.host.agents import ORDER_TIMEOUT_S, Agent
from sealift.migration.endings import ending
from sealift.model import Step
from sealift_agent.protocol import (
    CloseDestination,
    CloseSource,
    End,
    Outcome,
    ReleaseHeld,
    RemoveContainer,
    Role,
)

if TYPE_CHECKING:
    from sealift.host.agents import Caller
    from sealift.migration.journal import Journal
    from sealift.migration.parties import Parties
    from sealift_agent.protocol import Order

CLOSE_TIMEOUT_S = 45
"""Seconds after which a hanging agent is given up and replaced, unless it may wait for memory."""


class Closing:
    """Ends one migration on its hosts. `left` has a sentence for each thing that could not be done."""

    def __init__(self, parties: Parties, journal: Journal) -> None:
        self.left: list[str] = []
        self._parties = parties
        self._journal = journal
        self._source_is_done = False
        self._settled = True

    def remove_source(self) -> int:
        """After the commit, remove the source's copy, by its agent or, if that was killed, by a new one.

        In a post-copy this waits until all memory has been fetched. Returns the bytes that were fetched.
        """
        fetched = 0
        try:
            fetched = self._parties.source.agent.call(RemoveContainer()).page_bytes
        except HostUnreachable:
            self._end_without_agent(Role.SOURCE, Outcome.COMMITTED)
        except CommandFailed as failed:
            # Docker may run again when `recover` tries it. Memory that was never fetched stays for its owner.
            self._settled = failed.step == Step.FINISH
            self._source_is_done = True
            raise
        self._source_is_done = True  # set only now: after an interruption `put_away` does it again
        return fetched

    def leave_source(self) -> None:
        """The destination's memory can't be completed. The frozen copy at the source stays for its owner."""
        self._source_is_done = True

    def put_away(self, outcome: Outcome | None) -> None:
        """End the migration on both hosts. `outcome` is the decision; None if nobody could be asked."""
        if outcome is None:  # the hosts' agents ask on, and `recover` does the rest
            self._leave(OutcomeUnknown("what was decided is not known", remedy="`sealift recover` finds out"))
            return
        if outcome is Outcome.COMMITTED and not self._source_is_done:
            try:
                self.remove_source()
            except SealiftError as silent:
                self._leave(silent)
        self._close_agents(outcome)
        if self._journal.traces.made is not None:
            self._end_without_agent(Role.DESTINATION, Outcome.ROLLED_BACK)
        with suppress(SealiftError):  # what the gateway holds ends with its agent
            self._parties.gateway.call(End())
        self._release_held()
        if self._settled:
            try:
                self._journal.close()
            except SealiftError as silent:
                self._leave(silent)

    def _close_agents(self, outcome: Outcome) -> None:
        committed = outcome is Outcome.COMMITTED
        told: list[tuple[Caller, Order[None]]] = []
        if (source := self._parties.opened_source) is not None:
            told.append((source.agent, CloseSource()))
        if (destination := self._parties.opened_destination) is not None:
            told.append((destination.agent, CloseDestination(called_off=not committed)))
        for agent, close in told:
            try:
                agent.call(close, timeout_s=ORDER_TIMEOUT_S if committed else CLOSE_TIMEOUT_S)
            except SealiftError as silent:
                self._leave(silent)
                self._end_without_agent(close.ROLE, outcome)

    def _end_without_agent(self, role: Role, outcome: Outcome) -> None:
        """Let a new agent do it if the old one was lost. A host that is lost, too, is left to `recover`."""
        try:
            party = self._parties.source if role is Role.SOURCE else self._parties.destination
            if (order := ending(role, outcome, self._journal.traces)) is None:
                return
            with Agent(party.side.connection, role) as agent:
                agent.call(order)
        except SealiftError as silent:
            self._settled = False
            self._leave(silent)

    def _release_held(self) -> None:
        """Let a gateway whose agent is lost release packets that it may still hold."""
        address = self._journal.traces.address
        if self._parties.gateway.lost and address:
            try:
                self._parties.gateway.by_another(ReleaseHeld(address))
            except SealiftError as silent:
                self._settled = False
                self._leave(silent)

    def _leave(self, why: SealiftError) -> None:
        self.left.append(f"not put away: {why}")
