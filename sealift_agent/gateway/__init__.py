"""The gateway: where the one decision of a migration is taken, written down, and carried out.

A workload's address belongs to one host. Moving it is the commit of a migration: first the new owner is on disk
(`routes`), then the WireGuard peers are changed, in one operation of the kernel's (or wireguard-go's) table. A
migration that was called off can't commit any more, and one that has committed can't be called off: whoever asks first
decides.
What WireGuard does not take is tried again, and changes nothing of what was decided.

======= ==========================================================================
decider answers the two hosts of a migration, through the tunnel
keeper  has WireGuard do what is on record, also after this agent and after a restart
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
"""How long a gateway without its controller still answers the hosts, unless somebody else ends the migration."""

LOOK_AGAIN_S = 0.05


class Serving:
    """What one agent of the gateway has: the record, the journal, and a decider for each migration under way.

    It serves its controller; when that one has gone, it answers the hosts until somebody else has ended the migrations,
    or `ASK_UNTIL_S` are over; then it ends.
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
        """No host asks any more."""
        while self._deciders:
            self._deciders.pop().end()
        leave_keeper(self.routes)

    def gone(self) -> None:
        """The controller is gone. The two hosts may still have to ask."""
        mine = self.journal.let_go()
        until = time.monotonic() + ASK_UNTIL_S
        while self._deciders and any(map(self.journal.is_open, mine)) and time.monotonic() < until:
            time.sleep(LOOK_AGAIN_S)
        self.end()


def main(controller: Controller) -> None:
    """Serve one controller. A decider outlives it: the two hosts may still have to ask.

    Who starts finds the routes as the record has them: a gateway that was restarted has forgotten them.
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
    orders.on(protocol.Guarded, lambda _: firewall.stands())
    orders.on(protocol.Enter, lambda order: places.enter(order.limits))
    orders.on(protocol.Note, lambda order: journal.note(order.migration, order.phase, order.facts))
    orders.on(protocol.ListUnfinished, lambda _: journal.unfinished())
    orders.on(protocol.TakeOver, lambda order: journal.take(order.migration))
    orders.serve(controller, serving.gone)
