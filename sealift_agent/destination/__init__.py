"""The destination: it takes pages, images and files, restores under Docker, and asks the gateway for the address.

One module for each phase of the protocol (`protocol.Phase`). What a phase opens stays until `close`:

========== ============= ==========================================================================================
phase      module        state
========== ============= ==========================================================================================
new        `copy`        `Copy`: volumes and a container are made; `images` loads the container's image
prepared   `live`        `Listening`: files may come, and the source
opened     `live`        `Live`: the source is connected; a page server for each dump
armed      `cutover`     `Armed`: Docker's `start` of the container waits, then its `restore` and the `decision`
closed                   only a copy that has won
========== ============= ==========================================================================================

`afterwards` is for an agent whose predecessor has died. Docker's own start of the container begins before the source
freezes. It waits in the runtime wrapper, which reads a pipe for the message that the images are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import protocol
from ..orders import Orders
from ..protocol import Role
from ..wire import AgentError
from .afterwards import complete, sweep, sweep_unnamed
from .copy import Copy
from .cutover import Armed, arm
from .images import receive_image
from .live import Listening, Live

if TYPE_CHECKING:
    from ..wire import Controller

__all__ = ["Destination", "main"]


class Destination:
    """One migration, seen from where the container goes: what its phases have made so far."""

    def __init__(self, controller: Controller) -> None:
        self.copy = Copy()
        self._controller = controller
        self._listening: Listening | None = None
        self._live: Live | None = None
        self._armed: Armed | None = None

    @property
    def live(self) -> Live:
        """From `accept` to `close`."""
        if self._live is None:
            raise AgentError("the destination has no source yet")
        return self._live

    @property
    def armed(self) -> Armed:
        """From `arm` to `close`."""
        if self._armed is None:
            raise AgentError("the destination has not been armed")
        return self._armed

    def prepare(self, order: protocol.Prepare) -> protocol.Peer:
        """New → prepared. Returns where the source is expected."""
        self._listening = Listening(order)
        return self._listening.peer

    def accept(self) -> None:
        """Prepared → opened."""
        if self._listening is None:
            raise AgentError("the destination does not listen yet")
        self._live = self._listening.accept()

    def start_page_server(self, order: protocol.StartPageServer) -> int:
        """A page server for the next dump. Returns its port."""
        port = self.live.start_page_server(order)
        if self._armed is not None:
            self._armed.read_ahead()
        return port

    def arm(self, order: protocol.ArmDestination) -> None:
        """Opened → armed."""
        self._armed = arm(self.live, self.copy, order, self._controller)

    def close(self, *, called_off: bool = False) -> None:
        """→ closed, from any phase: remove images, and the copy if it is not committed.

        The next call retries what fails.

        With `called_off` the gateway has told the caller that it is rolled back, so it is not asked.
        """
        if self._armed is not None:
            self._armed.end(called_off=called_off)
        self.copy.give_up()
        if self._listening is not None:
            self._listening.close()
        if self._armed is not None:
            self._armed.put_policy_back()
        self._listening = self._live = self._armed = None

    def logs(self) -> dict[str, str]:
        """The ends of CRIU's logs."""
        return self.live.logs()

    def gone(self) -> None:
        """The controller is gone: the hosts get the decision of what was armed, and then everything is closed."""
        if self._armed is not None:
            self._armed.join()
        self.close()


def main(controller: Controller) -> None:
    """Serve one controller for one migration."""
    here = Destination(controller)
    orders = Orders(Role.DESTINATION)
    orders.on(protocol.ReceiveImage, lambda order: receive_image(order.address))
    orders.on(protocol.Adopt, lambda order: here.copy.adopt(order.container, order.volumes))
    orders.on(
        protocol.TakeVolumes,
        lambda order: here.copy.take_volumes(order.migration, order.lineages, order.created),
    )
    orders.on(protocol.Prepare, here.prepare)
    orders.on(protocol.Accept, lambda _: here.accept())
    orders.on(protocol.StartPageServer, here.start_page_server)
    orders.on(protocol.FinishPageServer, lambda _: here.live.finish_page_server())
    orders.on(protocol.ArmDestination, here.arm)
    orders.on(protocol.ReadPages, lambda _: here.armed.read_pages())
    orders.on(protocol.DestinationDecided, lambda order: here.armed.decided(order.outcome))
    orders.on(protocol.Finish, lambda _: here.armed.finish())
    orders.on(protocol.ReadDestinationLogs, lambda _: here.logs())
    orders.on(protocol.CloseDestination, lambda order: here.close(called_off=order.called_off))
    orders.on(protocol.SweepCopy, lambda order: sweep(order.migration, order.container, order.volumes))
    orders.on(
        protocol.SweepUnnamed,
        lambda order: sweep_unnamed(order.migration, order.name, order.image, order.volumes),
    )
    orders.on(protocol.Complete, complete)
    orders.serve(controller, here.gone)
