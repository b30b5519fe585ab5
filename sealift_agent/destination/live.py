"""Before the freeze: the destination listens, and takes files and memory while the container runs at the source."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from .. import dumps, logs
from ..admission import Admission
from ..files.daemon import Daemon
from ..memory.transfer import Incoming
from ..protocol import Peer
from ..wire import AgentError, Link

if TYPE_CHECKING:
    from pathlib import Path

    from ..protocol import Prepare, StartPageServer

SOURCE_S = 30
"""How long the source may take to connect."""


class Listening:
    """State prepared: authenticated clients may send files, and one source may connect (`accept` returns `Live`).

    `resources` are closed with it in reverse order. Later phases add what they open, so that everything is closed if a
    phase fails.
    """

    def __init__(self, order: Prepare) -> None:
        """Listen on the tunnel address. If this fails, everything is closed."""
        self.order = order
        self.token = secrets.token_hex(16)
        password = secrets.token_hex(16)
        with contextlib.ExitStack() as opened:
            self.directory, lock = dumps.make(order.migration)
            opened.callback(dumps.wipe, self.directory, lock)
            daemon = Daemon(self.directory, order.address, password, order.trees)
            opened.callback(daemon.stop)
            self._admission = Admission(order.address, self.token)
            opened.callback(self._admission.close)
            self.resources = opened.pop_all()
        self.peer = Peer(order.address, self._admission.port, self.token, password, daemon.port)

    def accept(self) -> Live:
        """Wait for the source's connection."""
        try:
            link = Link(self._admission.take(SOURCE_S))
        except OSError as nobody:
            raise AgentError(f"the source has not connected: {nobody}", "sync") from nobody
        self.resources.callback(link.close)
        return Live(self, link)

    def close(self) -> None:
        """Remove everything of the migration here except the copy, in whatever phase it is."""
        self.resources.close()


class Live:
    """State opened: `link` leads to the source. Each dump comes to a page server of its own.

    `restores` has the directory of the restore, once it is armed.
    """

    def __init__(self, listening: Listening, link: Link) -> None:
        self.order, self.token = listening.order, listening.token
        self.directory, self.resources = listening.directory, listening.resources
        self.link = link
        self.restores: list[Path] = []
        self._logs: dict[str, str] = {}
        self._incoming: Incoming | None = None
        self.resources.callback(self._end_page_server)

    @property
    def images(self) -> Path:
        """The directory of the last dump's images."""
        return self.directory / "final"

    def keep_logs(self) -> None:
        """Read the logs now: those of the restore go with the copy."""
        self._logs = logs.read([self.directory, *self.restores])

    def logs(self) -> dict[str, str]:
        """The ends of CRIU's logs, of now or of `keep_logs`."""
        return self._logs or logs.read([self.directory, *self.restores])

    def start_page_server(self, order: StartPageServer) -> int:
        """Start a page server for the next dump, on top of the previous one's images. Returns its port.

        With `compress` it expects pages as `relay.packed` sends them, with several `streams` over so many connections.
        """
        self.finish_page_server()
        self._incoming = Incoming(
            self.order.address,
            self.token,
            self.directory / order.name,
            self.directory / order.previous if order.previous else None,
            compress=order.compress,
            streams=order.streams,
        )
        return self._incoming.port

    def finish_page_server(self) -> None:
        """Wait for the page server of the last dump. AgentError if not all of its pages have come."""
        if self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            incoming.finish()

    def _end_page_server(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None
