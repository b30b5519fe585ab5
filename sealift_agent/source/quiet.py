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

UNREAD_S = 0.5
"""How long a program may take to read what a dump would lose."""

HELD_S = 0.5
"""How long new connections are held for it. Then they pass for as long."""

HALF_OPEN_S = 0.25
"""How long clients may take to confirm the answer that they got. Those of a flood never do: they are not waited for."""

CLOSED_S = 3.0
"""How long connections that the program has closed may take to send the rest. A peer may never read it."""

POLL_S = 0.002


class Quiet:
    """Finds that moment, and freezes the container in it.

    `cut_off`: how many connections still had data to send that the program had closed. They end without it.
    """

    def __init__(self, container: Container, gateway: Gateway, handshakes: Handshakes) -> None:
        self._container, self._gateway, self._handshakes = container, gateway, handshakes
        self.cut_off = self._stuck = 0

    def freeze(self) -> list[int]:
        """Have the gateway hold packets, freeze the container and detach it: `Container.freeze` has the result.

        AgentError if there is no such moment in time. The container runs then.
        """
        together = self._gateway.decides_together
        self._let_closed_end(GROUP_PATIENCE_S if together else CLOSED_S)
        until = time.monotonic() + (GROUP_PATIENCE_S if together else PATIENCE_S)
        while True:
            self._become_empty(until)
            self._gateway.demand("hold_new")
            if self._is_quiet():
                self._gateway.demand("hold")
                stopped = self._container.freeze()
                if not self._handshakes.unaccepted():
                    return stopped
                # A client that is not behind the gateway: another container of this host.
                self._container.go_on()
            self._gateway.demand("pass")
            if time.monotonic() > until:
                raise AgentError(
                    "there was no moment without a new connection to the container: CRIU takes none along that the "
                    "program has not accepted. Migrate again when fewer clients connect",
                    "final dump",
                )
            time.sleep(HELD_S)

    def _let_closed_end(self, patience_s: float) -> None:
        """Wait, for so long at most, until nothing is left to be sent of what the program has closed."""
        until = time.monotonic() + patience_s
        while (left := self._handshakes.still_sending()) and time.monotonic() < until:
            time.sleep(POLL_S)
        self._stuck = left

    def _become_empty(self, until: float) -> None:
        """Wait until the program has accepted all and has read what it has to."""
        while waiting := self._handshakes.unaccepted():
            if time.monotonic() > until:
                said = ", ".join(f"{number} at port {port}" for port, number in sorted(waiting.items()))
                raise AgentError(
                    f"connections wait to be accepted ({said}), and CRIU can't take them along: "
                    "migrate again once the program has accepted them",
                    "final dump",
                )
            time.sleep(POLL_S)
        if waits := unread.lasting(self._container.processes, UNREAD_S):
            raise AgentError(unread.why(waits), "final dump")

    def _is_quiet(self) -> bool:
        began, stuck = time.monotonic(), self._stuck
        while (waited_s := time.monotonic() - began) < HELD_S:
            half_open = waited_s < HALF_OPEN_S and self._handshakes.are_half_open()
            self.cut_off = self._handshakes.still_sending()
            closing = self.cut_off > stuck and waited_s < HALF_OPEN_S
            if not half_open and not closing and not self._handshakes.unaccepted():
                return True
            time.sleep(POLL_S)
        return False
