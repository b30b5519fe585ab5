"""Who answers the two hosts of one migration: the only place where a migration is decided.

A host asks `prepare` (the queue for held packets is made), `hold` (packets for the address are held), `switch` (commit,
if nobody has called it off), `call_off` (roll back, if it has not committed) and `release` (nothing is held any more).
What `switch` and `call_off` answer is on disk before it is said (`routes`), and the same for ever.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from .. import authenticated, points
from ..admission import Admission
from ..network.hold import Hold
from ..points import Point
from ..wire import WAITING, AgentError, Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..protocol import Move
    from ..routes import Routes

LOOK_FOR_OTHERS_S, WAIT_FOR_OTHERS_S = 0.002, 5
"""How often it looks whether the last of a group has asked, and after how long it says that it still has not."""

FINAL = {"release", "call_off"}
"""Questions after which nothing is held any more."""


class Decider(threading.Thread):
    """Answers the two hosts of one migration through the tunnel until told to end; holds packets in between."""

    def __init__(self, routes: Routes, address: str, token: str, key: str, move: Move, port: int = 0) -> None:
        super().__init__(daemon=True)
        self.routes = routes
        self.key, self.move = key, move
        self.hold: Hold | None = None
        self.questions: dict[str, Callable[[], dict[str, Any]]] = {
            "prepare": self._prepare,
            "hold": self._hold,
            "switch": self._switch,
            "release": self._release,
            "call_off": self._call_off,
        }
        self.admission = Admission(address, token, slots=None, port=port)
        self.port = self.admission.port

    def run(self) -> None:
        """Answer whoever knows the token."""
        while True:
            try:
                link = Link(self.admission.take())
            except OSError:
                return  # it was ended
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def end(self) -> None:
        """No more answers, and nothing held any more."""
        if self.hold is not None:
            self.hold.end()
        self.admission.close()

    def release(self) -> int:
        """Hold nothing any more. Returns how many packets were held."""
        return self.hold.release() if self.hold is not None else 0

    def _answer(self, link: Link) -> None:
        migration = self.move.migration
        while True:
            try:
                question, nonce = authenticated.hear(link, self.key, migration)
            except (AgentError, OSError):
                link.close()
                return
            said = self.say(question)
            try:
                authenticated.answer(link, self.key, migration, question, nonce, said)
            except OSError:
                link.close()
                return
            if question in FINAL and self.hold is not None:
                with contextlib.suppress(OSError):
                    self.hold.end()  # the answer does not wait for it

    def say(self, question: str) -> dict[str, Any]:
        """The answer to a question. `error` in it: there is none yet, or not for good. It is never a no."""
        try:
            return self.questions[question]()
        except Exception as failure:  # noqa: BLE001 - whoever asked waits for a word, whatever went wrong
            kind = "" if isinstance(failure, AgentError) else f"{type(failure).__name__}: "
            return {"error": f"{kind}{failure}"}

    def _prepare(self) -> dict[str, Any]:
        if self.hold is None:
            self.hold = Hold(self.move.address)
        return {"prepared": True}

    def _hold(self) -> dict[str, Any]:
        self._prepare()
        if self.hold is not None:
            self.hold.hold()
        return {"holding": True}

    def _switch(self) -> dict[str, Any]:
        until = time.monotonic() + WAIT_FOR_OTHERS_S
        while (outcome := self.routes.switch(self.move)) == WAITING and time.monotonic() < until:
            time.sleep(LOOK_FOR_OTHERS_S)
        points.passed(Point.DECIDED)
        behind = self.routes.behind.get(self.move.address)
        return {"outcome": outcome, **({"routes": f"failed: {behind}"} if behind else {})}

    def _release(self) -> dict[str, Any]:
        return {"held": self.release()}

    def _call_off(self) -> dict[str, Any]:
        outcome = self.routes.call_off(self.move.migration)
        with contextlib.suppress(
            OSError, AgentError
        ):  # it is decided: nothing may come in the way of saying so
            self.release()
        return {"outcome": outcome}
