"""How the destination learns the migration's outcome."""

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
"""Seconds. By then a gateway whose agent was killed has a new one."""

ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S = 30, 10


class Decision:
    """States: asking to switch → asking to call off, after an error → decided. The outcome is recorded, or told.

    A host that got no answer may have won, and so may one that got an error: neither is a refusal. After an error this
    side asks the gateway to call the migration off, and then does what the record says. `refused` is the error's text.

    `told` is the outcome that another party has from the gateway: the controller (`tell`), or `recover`, which writes
    it to the migration's `directory`.
    """

    def __init__(self, gateway: Gateway, controller: Controller, source: Link, directory: Path) -> None:
        self._gateway, self._controller, self._source = gateway, controller, source
        self._directory = directory
        self._told: str | None = None
        self.refused: str | None = None

    def switch(self) -> bool:
        """Ask for the address until an outcome is recorded. Returns whether this side has the address.

        The others of a group may take long: their source makes sure that this ends. If there is no answer for a longer
        time, the source is told. It then asks for the other outcome instead of staying frozen.
        """
        doubted = time.monotonic() + DOUBT_S
        while self._told is None:
            try:
                answer = self._gateway.ask("call_off" if self.refused else "switch")
            except Exception as lost:  # noqa: BLE001 - no exception is an answer
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
        """Report that there is no outcome yet, to the source, too, after a longer time. Then prepare to ask again."""
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
        """Take an outcome that another party has from the gateway, so that this side need not ask on.

        With `interrupt` a question without an answer yet is cancelled.
        """
        self._told = outcome
        if interrupt:
            self.stop_asking()

    def release(self) -> int:
        """After the commit, let the gateway release held packets. Returns their number."""
        return messages.held(self._gateway.ask("release"))

    def stop_asking(self) -> None:
        """Cancel a question without an answer yet: it ends with an error."""
        self._gateway.close()
