"""The gateway: where the one decision of a migration is taken, written down, and carried out.

A workload's address belongs to one host. Moving it is the commit of a migration: first the new owner is on disk
(`routes`), then the WireGuard peers are changed, in one operation of the kernel's (or wireguard-go's) table. A
migration that was called off can't commit any more, and one that has committed can't be called off: whoever asks first
decides.
What WireGuard does not take is tried again, and changes nothing of what was decided.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import authenticated, durable, points, protocol
from .admission import Admission
from .journal import Journal
from .network import firewall
from .network.allowed import INTERFACE
from .network.hold import Hold, sweep
from .orders import Orders
from .places import Places
from .points import Point
from .protocol import Move, Outcome, Role
from .routes import STATE, Routes
from .wire import WAITING, AgentError, Controller, Link

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_FOR_OTHERS_S, WAIT_FOR_OTHERS_S = 0.002, 5
"""How often it looks whether the last of a group has asked, and after how long it says that it still has not."""


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


class Keeper(threading.Thread):
    """Has WireGuard do what is on record as long as it does not. A gateway that is started again does so at once."""

    def __init__(self, routes: Routes) -> None:
        super().__init__(daemon=True)
        self.routes = routes

    def run(self) -> None:
        """Look again and again, the more seldom the longer nothing changes."""
        seen: dict[str, str] = {}
        pause_s: float = APPLY_AGAIN_S
        while True:
            time.sleep(pause_s)
            if self.routes.behind:
                with contextlib.suppress(OSError, ValueError):
                    self.routes.restore()
            pause_s = (
                min(pause_s * 2, APPLY_AT_LEAST_S) if seen and seen == self.routes.behind else APPLY_AGAIN_S
            )
            seen = self.routes.behind


def restore_routes(controller: Controller) -> None:  # noqa: ARG001 - it serves nobody
    """What `network up` runs when the gateway starts: WireGuard gets what the record says."""
    for name, why in Routes().restore().items():
        print(f"{name}: {why}", file=sys.stderr)  # noqa: T201 - for who starts the gateway


def keep_on(controller: Controller) -> None:  # noqa: ARG001 - it serves nobody
    """What outlives an agent whose controller has gone before WireGuard did what is on record; one at a time."""
    routes = Routes()
    with (STATE / "keeping").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        until = time.monotonic() + KEEP_ON_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError):
                if INTERFACE not in routes.restore():
                    return
            time.sleep(KEEP_ON_PAUSE_S)


def stay(archive: Path, state: Path = STATE) -> None:
    """Leave this program where a restarted gateway finds it (`restore_routes`)."""
    durable.folder(state)
    content, there = archive.read_bytes(), state / "agent.pyz"
    if not there.exists() or there.read_bytes() != content:
        fresh = there.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(content)
        fresh.rename(there)


def main(controller: Controller) -> None:
    """Serve one controller. A decider outlives it: the two hosts may still have to ask.

    Who starts finds the routes as the record has them: a gateway that was restarted has forgotten them.
    """
    stay(Path(sys.argv[0]))
    routes, journal, places = Routes(), Journal(), Places()
    with contextlib.suppress(OSError, ValueError):
        routes.restore()
    Keeper(routes).start()
    deciders: list[Decider] = []

    def decide(order: protocol.Decide) -> int:
        if order.members:
            routes.bind(order.members)
        decider = Decider(routes, order.address, order.token, order.key, order.move, order.port)
        decider.start()
        deciders.append(decider)
        return decider.port

    def gone() -> None:
        mine = journal.let_go()
        until = time.monotonic() + ASK_UNTIL_S
        while deciders and any(map(journal.is_open, mine)) and time.monotonic() < until:
            time.sleep(LOOK_AGAIN_S)
        end()

    def end() -> None:
        while deciders:
            deciders.pop().end()
        if INTERFACE in routes.behind:  # a peer that it does not have is told with that peer's key
            nothing = subprocess.DEVNULL
            words = [sys.executable, sys.argv[0], "keep"]
            with contextlib.suppress(OSError):
                subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)

    orders = Orders(Role.GATEWAY)
    orders.on(
        protocol.AdoptKey, lambda order: routes.adopt(order.host, order.peer, order.tunnel, order.endpoint)
    )
    orders.on(protocol.Assign, lambda order: routes.assign(order.address, order.peer, order.host))
    orders.on(protocol.Release, lambda order: routes.release(order.address))
    orders.on(protocol.ShowRecord, lambda _: routes.show())
    orders.on(protocol.CarryOut, lambda _: routes.restore())
    orders.on(protocol.CheckPeer, lambda order: routes.check_peer(order.peer))
    orders.on(protocol.CallOff, lambda order: Outcome(routes.call_off(order.migration)))
    orders.on(protocol.Decide, decide)
    orders.on(protocol.End, lambda _: end())
    orders.on(protocol.ReleaseHeld, lambda order: sweep(order.address))
    orders.on(protocol.Guarded, lambda _: firewall.stands())
    orders.on(protocol.Enter, lambda order: places.enter(order.limits))
    orders.on(protocol.Note, lambda order: journal.note(order.migration, order.phase, **order.facts))
    orders.on(protocol.ListUnfinished, lambda _: journal.unfinished())
    orders.on(protocol.TakeOver, lambda order: journal.take(order.migration))
    orders.serve(controller, gone)


APPLY_AGAIN_S, APPLY_AT_LEAST_S = 0.5, 30
"""How soon WireGuard is told again what it did not do, and how often at least."""

KEEP_ON_S, KEEP_ON_PAUSE_S = 3600, 2
"""The same when the controller has gone: for how long, and how often."""

FINAL = {"release", "call_off"}
"""Questions after which nothing is held any more."""

ASK_UNTIL_S = 120
"""How long a gateway without its controller still answers the hosts, unless somebody else ends the migration."""

LOOK_AGAIN_S = 0.05
