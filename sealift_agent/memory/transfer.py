"""Send the pages of a dump from CRIU at the source to a page server at the destination.

CRIU's own page server listens for anybody, and takes or gives pages without authentication. So CRIU neither connects
nor listens: the agents do (`admission`), and each CRIU inherits its end as a descriptor (`ps-socket`). For a rate
limit, compression or several connections there is a relay in between, and CRIU has one end of a pair of local sockets.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from typing import TYPE_CHECKING

from .. import admission, criu
from ..wire import AgentError
from . import cork, zstd
from .relay import Relay, joined, packed, plain, spread, unpacked

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from .relay import Carry

FIRST_NUMBER = 32
"""The smallest number of a descriptor for CRIU, since runc and the shim of CRIU use the small numbers."""


def purpose(name: str) -> str:
    """The purpose of connections for the pages of one dump."""
    return f"pages {name}"


class Outgoing:
    """The source's end. It is connected to the destination's. `close` it when the dump has ended in any way."""

    def __init__(
        self,
        there: tuple[str, int],
        token: str,
        name: str,
        *,
        rate: int | None = None,
        compress: bool = False,
        streams: int = 1,
    ) -> None:
        """AgentError if the destination can't be reached. `rate` is in bytes a second."""
        self._relay: Relay | None = None
        connections: list[socket.socket] = []
        try:
            connections.extend(
                admission.connect(*there, token, purpose(name), slot) for slot in range(streams)
            )
        except OSError as silent:
            for each in connections:
                each.close()
            raise AgentError(f"the destination takes no pages at {there[0]}: {silent}") from silent
        self.connection: socket.socket | None = connections[0]
        end = connections[0]
        if rate is not None or compress or streams > 1:
            carry: Carry = packed if compress else spread if streams > 1 else plain
            near, end = socket.socketpair()
            self._relay = Relay([near], connections, rate=rate, carry=carry).open()
            self.connection = None
        self.descriptor = fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_NUMBER)
        if self._relay is not None:
            end.close()

    @property
    def settings(self) -> str:
        """Lines for CRIU's configuration file, for a CRIU that inherits `descriptor`."""
        return f"ps-socket {self.descriptor}\n"

    @property
    def name(self) -> str:
        """Address and port of this end, in the form that `ss` takes."""
        assert self.connection is not None  # noqa: S101 - there is no relay
        return "{}:{}".format(*self.connection.getsockname())

    def sent(self) -> dict[str, int]:
        """`packed_bytes`: what a relay has sent, if there is one."""
        return {"packed_bytes": self._relay.sent} if self._relay is not None else {}

    def hand_over(self) -> None:
        """Close the descriptor after CRIU has inherited it, so that CRIU's end ends the connection."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def pushed(self) -> cork.Pushed:
        """Within a block, send at once what CRIU holds back."""
        return cork.Pushed(self.connection)

    def leave_to_criu(self) -> None:
        """Close the connection here. Only the CRIU that has inherited it still has it."""
        self.hand_over()
        if self.connection is not None:
            self.connection.close()

    def close(self) -> None:
        """The dump has ended: end the connection, so that the other side does not wait."""
        self.hand_over()
        if self._relay is not None:
            self._relay.close()
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            self.connection.close()


class Incoming:
    """The destination's end. It waits for the source, and then starts CRIU's page server on its connection."""

    def __init__(
        self,
        address: str,
        token: str,
        images: Path,
        previous: Path | None,
        *,
        compress: bool = False,
        streams: int = 1,
    ) -> None:
        """Receive the pages of a dump into the directory `images`. Earlier pages are those of `previous`.

        With `compress` they come as `relay.packed` sends them. With several `streams` they come over so many
        connections.
        """
        if compress:
            zstd.require()
        self._images, self._previous = images, previous
        self._carry: Carry | None = unpacked if compress else joined if streams > 1 else None
        self._relay: Relay | None = None
        self._server: subprocess.Popen[str] | None = None
        self._failure: Exception | None = None
        self._begun = threading.Event()
        self._admission = admission.Admission(address, token, purpose(images.name), slots=streams)
        self.port = self._admission.port
        self._thread = threading.Thread(target=self._receive, daemon=True, name="pages")
        self._thread.start()

    def _receive(self) -> None:
        """One thread does all of this, up to CRIU's end: a child that dies with us dies with its parent thread."""
        try:
            end, *_ = came = self._admission.take_all()
            if self._carry is not None:
                end, near = socket.socketpair()
                self._relay = Relay(came, [near], carry=self._carry).open()
            with end:
                self._server = criu.page_server(self._images, end.fileno(), self._previous)
            self._begun.set()
            criu.finish(self._server, "transfer", self._images / "page-server.log")
        except (OSError, AgentError) as failed:
            self._failure = self._failure or failed  # a page server that was killed has a reason already
        finally:
            self._begun.set()

    def finish(self) -> None:
        """Wait for the end of the dump. AgentError if not all pages have come, or if no source has connected.

        A page server that makes no progress is killed.
        """
        self._admission.close()
        self._begun.wait()
        if self._server is not None:
            progress = criu.Progress(self._images / "page-server.log", self._server.pid)
            while self._thread.is_alive():
                self._thread.join(criu.POLL_S)
                if self._thread.is_alive() and progress.stands_still():
                    self._server.kill()
                    self._failure = AgentError(f"the page server has stood still for {criu.STANDSTILL_S} s")
                    break
        self._thread.join()
        self._end_relay()
        if self._failure is not None:
            raise AgentError(str(self._failure), "transfer") from self._failure

    def close(self) -> None:
        """Take no more pages, even if some are missing."""
        self._admission.close()
        self._begun.wait()
        if self._server is not None:
            self._server.kill()  # a stopped process reacts to no other signal
        self._thread.join()
        self._end_relay()

    def _end_relay(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None
