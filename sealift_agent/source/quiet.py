"""The moment for the freeze: one in which nothing waits that a dump would lose or refuse.

No connection waits to be accepted, and none is half open. Old connections are served all the time. New ones are held at
the gateway only for the last moments, so that their clients see a delay and no refusal. A program that accepts slowly
is waited for without holding anything.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import unread
from ..wire import AgentError

if TYPE_CHECKING:
    from ..authenticated import Gateway
    from ..network.handshakes import Handshakes
    from .container import Container

PATIENCE_S, GROUP_PATIENCE_S = 60.0, 0.5
"""How long the program may take to empty its queues. In a group the other members may be frozen meanwhile."""

BY_ITSELF_S = 5.0
"""How long it may take before new connections are held for it."""

UNREAD_S = 0.5
"""How long a program may take to read what a dump would lose."""

HELD_S, MOST_HELD_S = 0.5, 8.0
"""How long new connections are held the first time; then they pass for as long. Each time it is twice as long."""

HALF_OPEN_S = 0.25
"""How long clients may take to confirm the answer that they got. Those of a flood never do: they are not waited for."""

CLOSED_S = 3.0
"""How long connections that the program has closed may take to send the rest. A peer may never read it."""

POLL_S = 0.002


class Quiet:
    """Finds that moment (`wait`), and freezes the container in it (`freeze`).

    `cut_off`: how many connections still had data to send that the program had closed. They end without it.
    """

    def __init__(self, container: Container, gateway: Gateway, handshakes: Handshakes) -> None:
        self._container, self._gateway, self._handshakes = container, gateway, handshakes
        self.cut_off = self._stuck = 0

    def wait(self) -> None:
        """Wait for the moment. New connections are held from then on. AgentError if there is none in time."""
        together = self._gateway.decides_together
        until = time.monotonic() + (GROUP_PATIENCE_S if together else PATIENCE_S)
        self._let_closed_end(GROUP_PATIENCE_S if together else CLOSED_S)
        held_s = HELD_S
        while True:
            self._let_accept(min(until, time.monotonic() + BY_ITSELF_S))
            if waits := unread.lasting(self._container.processes, UNREAD_S):
                raise AgentError(unread.why(waits), "final dump")
            self._gateway.demand("hold_new")
            if self._becomes_quiet(held_s):
                return
            self._gateway.demand("pass")
            if time.monotonic() > until:
                raise AgentError(self._why(), "final dump")
            time.sleep(held_s)
            held_s = min(MOST_HELD_S, 2 * held_s)

    def freeze(self) -> list[int]:
        """Have the gateway hold packets, freeze the container and detach it: `Container.freeze` has the result.

        A client that is not behind the gateway, such as another container of this host, may connect in between, and a
        watched file may change. Then the container goes on, and it is waited for again. AgentError if there is no
        moment in time; it runs then.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            self._gateway.demand("hold")
            stopped = self._container.freeze()
            connections, events = self._handshakes.unaccepted(), self._container.unread_events()
            if not connections and not events:
                return stopped
            self._container.go_on()
            self._gateway.demand("pass")
            if time.monotonic() > until:
                raise AgentError(unread.why(events) if events else self._why(), "final dump")
            self.wait()

    def _let_closed_end(self, patience_s: float) -> None:
        """Wait, for so long at most, until nothing is left to be sent of what the program has closed."""
        until = time.monotonic() + patience_s
        while (left := self._handshakes.still_sending()) and time.monotonic() < until:
            time.sleep(POLL_S)
        self._stuck = left

    def _let_accept(self, until: float) -> None:
        while self._handshakes.unaccepted() and time.monotonic() < until:
            time.sleep(POLL_S)

    def _becomes_quiet(self, patience_s: float) -> bool:
        began, stuck = time.monotonic(), self._stuck
        while (waited_s := time.monotonic() - began) < patience_s:
            half_open = waited_s < HALF_OPEN_S and self._handshakes.are_half_open()
            self.cut_off = self._handshakes.still_sending()
            closing = self.cut_off > stuck and waited_s < HALF_OPEN_S
            if not half_open and not closing and not self._handshakes.unaccepted():
                return True
            time.sleep(POLL_S)
        return False

    def _why(self) -> str:
        waiting = sorted(self._handshakes.unaccepted().items())
        said = ", ".join(f"{number} at port {port}" for port, number in waiting) or "none just now"
        return (
            f"there was no moment in which no connection waits to be accepted ({said}), and CRIU can't take them "
            "along: migrate again when the program accepts faster, or fewer clients connect"
        )
