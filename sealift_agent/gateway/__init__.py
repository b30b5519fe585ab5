"""The gateway: it makes a migration's only decision, records it, and carries it out.

A workload's address belongs to one host. Moving it is the commit of a migration: first the new host is written to disk
(`routes`), then the WireGuard peers are changed, in one operation of the table of the kernel or of wireguard-go. A
migration that was called off can't commit any more, and one that has committed can't be called off: the first question
decides. If WireGuard refuses a change, it is tried again. The decision does not change.

======= ==========================================================================
decider answers the two hosts of a migration, through the tunnel
keeper  sets the recorded routes in WireGuard, also after this agent and after a restart
======= ==========================================================================
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import protocol
from ..journal import Journal
from ..network import firewall
from ..network.hold import sweep
from ..orders import Orders
from ..places import Places
from ..protocol import Outcome, Role
from ..routes import Routes
from .decider import Decider
from .keeper import Keeper, keep_on, leave_keeper, restore_routes, stay

if TYPE_CHECKING:
    from ..wire import Controller

__all__ = ["Decider", "Keeper", "Serving", "keep_on", "main", "restore_routes"]

ASK_UNTIL_S = 120
"""Seconds that a gateway without its controller still answers the hosts, unless the migration is ended by another."""

CHECK_AGAIN_S = 0.05


class Serving:
    """What one agent of the gateway has: the record, the journal, and a decider for each running migration.

    It serves its controller. When the controller has gone, it answers the hosts until another agent has ended the
    migrations, or for `ASK_UNTIL_S`. Then it ends.
    """

    def __init__(self, routes: Routes, journal: Journal) -> None:
        self.routes, self.journal = routes, journal
        self._deciders: list[Decider] = []

    def decide(self, order: protocol.Decide) -> int:
        """Answer the two hosts of a migration from now on. Returns the port."""
        if order.members:
            self.routes.bind(order.members)
        decider = Decider(self.routes, order.address, order.token, order.key, order.move, order.port)
        decider.start()
        self._deciders.append(decider)
        return decider.port

    def end(self) -> None:
        """Answer no hosts any more."""
        while self._deciders:
            self._deciders.pop().end()
        leave_keeper(self.routes)

    def gone(self) -> None:
        """The controller is gone. The two hosts may still have questions."""
        mine = self.journal.let_go()
        until = time.monotonic() + ASK_UNTIL_S
        while self._deciders and any(map(self.journal.is_open, mine)) and time.monotonic() < until:
            time.sleep(CHECK_AGAIN_S)
        self.end()


def main(controller: Controller) -> None:
    """Serve one controller. A decider outlives it, since the two hosts may still have questions.

    An agent first sets the recorded routes, since a restarted gateway has lost them.
    """
    stay(Path(sys.argv[0]))
    routes, journal, places = Routes(), Journal(), Places()
    with contextlib.suppress(OSError, ValueError):
        routes.restore()
    Keeper(routes).start()
    serving = Serving(routes, journal)
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
    orders.on(protocol.Decide, serving.decide)
    orders.on(protocol.End, lambda _: serving.end())
    orders.on(protocol.ReleaseHeld, lambda order: sweep(order.address))
    orders.on(protocol.Guarded, lambda _: firewall.is_loaded())
    orders.on(protocol.Enter, lambda order: places.enter(order.limits))
    orders.on(protocol.Note, lambda order: journal.note(order.migration, order.phase, order.facts))
    orders.on(protocol.ListUnfinished, lambda _: journal.unfinished())
    orders.on(protocol.TakeOver, lambda order: journal.take(order.migration))
    orders.serve(controller, serving.gone)
