"""The decider of one migration: it answers the two hosts. A migration is decided nowhere else.

A host asks `prepare` (make the queue for held packets), `hold_new` (hold packets that begin a connection with the
address), `pass` (let them pass, until it asks again), `hold` (hold all packets for the address), `switch` (commit,
unless it was called off), `call_off` (roll back, unless it has committed) and `release` (hold nothing any more).
Answers to
`switch` and `call_off` are on disk before they are sent (`routes`), and never change.
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

CHECK_OTHERS_S, WAIT_FOR_OTHERS_S = 0.002, 5
"""Seconds between two checks whether the last of a group has asked, and seconds until the answer that it has not."""

FINAL = {"release", "call_off"}
"""After these questions nothing is held any more."""


class Decider(threading.Thread):
    """Answers the two hosts of one migration through the tunnel until `end`. Holds packets in between."""

    def __init__(self, routes: Routes, address: str, token: str, key: str, move: Move, port: int = 0) -> None:
        super().__init__(daemon=True)
        self.routes = routes
        self.key, self.move = key, move
        self.hold: Hold | None = None
        self.questions: dict[str, Callable[[], dict[str, Any]]] = {
            "prepare": self._prepare,
            "hold_new": self._hold_new,
            "pass": self._pass,
            "hold": self._hold,
            "switch": self._switch,
            "release": self._release,
            "call_off": self._call_off,
        }
        self.admission = Admission(address, token, slots=None, port=port)
        self.port = self.admission.port

    def run(self) -> None:
        """Answer every host that knows the token."""
        while True:
            try:
                link = Link(self.admission.take())
            except OSError:
                return  # it was ended
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def end(self) -> None:
        """Answer no more, and hold nothing any more."""
        if self.hold is not None:
            self.hold.end()
        self.admission.close()

    def release(self) -> int:
        """Hold nothing any more. Returns the number of packets that were held."""
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
                    self.hold.end()  # the answer does not have to wait for this

    def say(self, question: str) -> dict[str, Any]:
        """The answer to a question. If it has `error`, there is none yet, or it is not final. It never means no."""
        try:
            return self.questions[question]()
        except Exception as failure:  # noqa: BLE001 - a host waits for an answer, whatever has failed
            kind = "" if isinstance(failure, AgentError) else f"{type(failure).__name__}: "
            return {"error": f"{kind}{failure}"}

    def _prepare(self) -> dict[str, Any]:
        if self.hold is None:
            self.hold = Hold(self.move.address)
        return {"prepared": True}

    def _hold_new(self) -> dict[str, Any]:
        self._prepare()
        if self.hold is not None:
            self.hold.hold_new()
        return {"holding": True}

    def _pass(self) -> dict[str, Any]:
        return {"held": self.release()}

    def _hold(self) -> dict[str, Any]:
        self._prepare()
        if self.hold is not None:
            self.hold.hold()
        return {"holding": True}

    def _switch(self) -> dict[str, Any]:
        until = time.monotonic() + WAIT_FOR_OTHERS_S
        while (outcome := self.routes.switch(self.move)) == WAITING and time.monotonic() < until:
            time.sleep(CHECK_OTHERS_S)
        points.passed(Point.DECIDED)
        behind = self.routes.behind.get(self.move.address)
        return {"outcome": outcome, **({"routes": f"failed: {behind}"} if behind else {})}

    def _release(self) -> dict[str, Any]:
        return {"held": self.release()}

    def _call_off(self) -> dict[str, Any]:
        outcome = self.routes.call_off(self.move.migration)
        with contextlib.suppress(OSError, AgentError):  # it is decided, and the answer must not fail
            self.release()
        return {"outcome": outcome}
