"""How the migration was decided, as the destination learns it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from .. import dumps, messages
from ..protocol import Undecided
from ..routes import COMMITTED, ROLLED_BACK
from ..wire import WAITING, AgentError

if TYPE_CHECKING:
    from pathlib import Path

    from ..authenticated import Gateway
    from ..wire import Controller, Link

ASK_AGAIN_S = 1
DOUBT_S = 10
"""A gateway whose agent was killed has another one by then."""

ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S = 30, 10


class Decision:
    """asking to switch → asking to call off, after an error → decided. What it is decided by is on record, or told.

    Who asked and got no answer may have won, and so may who got an error: that is never a no. After one this side asks
    to have it called off, and does what the record says then. `refused` is that error, in words.

    `told` is the outcome that somebody else has from the gateway: the controller (`tell`), or `recover`, which leaves
    it in the migration's `directory`.
    """

    def __init__(self, gateway: Gateway, controller: Controller, source: Link, directory: Path) -> None:
        self._gateway, self._controller, self._source = gateway, controller, source
        self._directory = directory
        self._told: str | None = None
        self.refused: str | None = None

    def switch(self) -> bool:
        """Ask for the address until there is an outcome on record; whether it is this side's.

        The others of a group may take their time: their source sees to it that this comes to an end. A doubt that stays
        is told to the source, which then asks for the other outcome instead of staying frozen.
        """
        doubted = time.monotonic() + DOUBT_S
        while self._told is None:
            try:
                answer = self._gateway.ask("call_off" if self.refused else "switch")
            except Exception as lost:  # noqa: BLE001 - whatever it is, it is no answer
                self._doubt(f"the gateway does not answer: {lost}", tell=time.monotonic() > doubted)
                continue
            outcome = answer.get("outcome")
            if outcome in {COMMITTED, ROLLED_BACK}:
                return bool(outcome == COMMITTED)
            if outcome == WAITING:
                doubted = time.monotonic() + DOUBT_S
                continue
            refusal = str(answer.get("error", f"it said {outcome!r}"))
            if self.refused:
                self._doubt(f"the gateway gives no outcome: {refusal}", tell=time.monotonic() > doubted)
            self.refused = self.refused or refusal
        return self._told == COMMITTED

    def _doubt(self, why: str, *, tell: bool) -> None:
        """No outcome yet: say so, to the source too if it has lasted, and get ready to ask again."""
        self._told = self._told or dumps.told(self._directory)
        if self._told is not None:  # `tell` has closed the connection
            return
        self._controller.event(Undecided(why))
        if tell:
            with contextlib.suppress(OSError):
                self._source.send(failed=why, step="network switch")
        time.sleep(ASK_AGAIN_S)
        with contextlib.suppress(OSError, AgentError):
            self._gateway.connect(CONNECT_TIMEOUT_S)

    def tell(self, outcome: str, *, interrupt: bool = True) -> None:
        """The outcome, by somebody who has it from the gateway: who can't reach it need not go on asking.

        `interrupt`: what is asked at this moment is not waited for.
        """
        self._told = outcome
        if interrupt:
            self.stop_asking()

    def release(self) -> int:
        """After the commit: have the gateway hold nothing any more. Returns how many packets it had held."""
        return messages.held(self._gateway.ask("release"))

    def stop_asking(self) -> None:
        """What is asked at this moment is answered by an error."""
        self._gateway.close()
