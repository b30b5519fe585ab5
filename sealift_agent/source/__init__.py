"""The source: it has the container, sends it while it runs, then freezes it and hands it over.

One module for each phase of the protocol (`protocol.Phase`). What a phase opens stays until `close`:

========== ============= ===========================================================================
phase      module        state
========== ============= ===========================================================================
new                      nothing yet; `images` sends the container's image
opened     `live`        `Live`: both hosts are connected, the container runs
armed      `cutover`     `Armed`: `Live`, the `container`'s freezer, a `dump` that waits for `go`
cutover    `cutover`     the same; frozen, then decided
closed                   nothing any more
========== ============= ===========================================================================

`afterwards` is for an agent whose predecessor has died. From the freeze on only this process decides when the container
may run again: see `Armed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import logs, protocol, restart, volume_marks
from ..orders import Orders
from ..protocol import Role
from ..wire import AgentError
from .afterwards import discard, resume
from .cutover import Armed, arm
from .images import send_image
from .live import Live

if TYPE_CHECKING:
    from ..wire import Controller

__all__ = ["Source", "main"]


class Source:
    """One migration, seen from where the container runs: what its phases have made so far."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._live: Live | None = None
        self._armed: Armed | None = None

    @property
    def live(self) -> Live:
        """From `open` to `close`."""
        if self._live is None:
            raise AgentError("the source has not been opened")
        return self._live

    @property
    def armed(self) -> Armed:
        """From `arm` to `close`."""
        if self._armed is None:
            raise AgentError("the source has not been armed")
        return self._armed

    def open(self, order: protocol.OpenSource) -> list[str]:
        """New → opened. Returns what the container's standard descriptors lead to."""
        self._live = Live(order)
        return self._live.descriptors

    def arm(self, order: protocol.ArmSource) -> None:
        """Opened → armed."""
        self._armed = arm(self.live, order, self._controller)

    def close(self) -> None:
        """→ closed, from any phase. Unless it has committed the container goes on. What fails is tried by the next."""
        if self._armed is not None:
            self._armed.close()
        elif self._live is not None:
            self._live.release()
        if self._live is not None:
            self._live.close()
        self._live = self._armed = None


def main(controller: Controller) -> None:
    """Serve one controller for one migration."""
    source = Source(controller)
    orders = Orders(Role.SOURCE)
    orders.on(protocol.OpenSource, source.open)
    orders.on(protocol.KeepVolumes, lambda order: volume_marks.keep(order.migration, order.names))
    orders.on(protocol.SendImage, send_image)
    orders.on(protocol.LivePass, lambda _: source.live.live_pass())
    orders.on(protocol.SendLog, lambda order: source.live.send_log(order.name, order.behind))
    orders.on(protocol.PreDump, lambda order: source.live.pre_dump(order.name, order.port))
    orders.on(protocol.SlowDown, lambda _: source.live.slow_down())
    orders.on(protocol.GatherPages, lambda _: source.live.gather_pages())
    orders.on(protocol.ArmSource, source.arm)
    orders.on(protocol.RestartPolicy, lambda order: restart.policy(order.container))
    orders.on(protocol.Go, lambda _: source.armed.go())
    orders.on(protocol.SourceDecided, lambda order: source.armed.decided(order.outcome))
    orders.on(protocol.RemoveContainer, lambda _: source.armed.remove_container())
    orders.on(protocol.ReadSourceLogs, lambda _: logs.read([source.live.directory]))
    orders.on(protocol.CloseSource, lambda _: source.close())
    orders.on(protocol.Resume, resume)
    orders.on(protocol.Discard, lambda order: discard(order.migration, order.container))
    orders.serve(controller, source.close)
