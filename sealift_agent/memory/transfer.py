"""Pages on their way from a CRIU at the source to a page server at the destination.

CRIU's own page server listens for anybody, and takes or gives pages without asking. So neither CRIU connects or
listens: the agents do (`admission`), and each CRIU gets its end as a descriptor that it inherits (`ps-socket`). Where
pages are to be held to a rate, compressed, or sent over several connections, a relay stands between, and CRIU has one
end of a pair of local sockets.
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
"""The least number of a descriptor that CRIU gets: runc and what stands in for CRIU use the small ones."""


def purpose(name: str) -> str:
    """What connections for the pages of one dump are for."""
    return f"pages {name}"


class Outgoing:
    """The source's end, connected to the destination's. `close` it when the dump has ended, whatever became of it."""

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
        """Lines of a configuration file of CRIU's, for one that inherits `descriptor`."""
        return f"ps-socket {self.descriptor}\n"

    @property
    def name(self) -> str:
        """Address and port of its end here, as `ss` takes them."""
        assert self.connection is not None  # noqa: S101 - nothing stands between
        return "{}:{}".format(*self.connection.getsockname())

    def sent(self) -> dict[str, int]:
        """`packed_bytes`: what a relay has sent, if there is one."""
        return {"packed_bytes": self._relay.sent} if self._relay is not None else {}

    def hand_over(self) -> None:
        """The CRIU that inherits it has been started: once that one ends, the other side is to see it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def pushed(self) -> cork.Pushed:
        """For the length of a block: what CRIU keeps back is pushed on."""
        return cork.Pushed(self.connection)

    def let_go(self) -> None:
        """From now on the CRIU that has inherited it is the only one that has it."""
        self.hand_over()
        if self.connection is not None:
            self.connection.close()

    def close(self) -> None:
        """The dump has ended: whatever the other side still waits for does not come."""
        self.hand_over()
        if self._relay is not None:
            self._relay.close()
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            self.connection.close()


class Incoming:
    """The destination's end: it waits for the source, and then starts CRIU's page server on its connection."""

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
        """Pages of the dump that is named as the directory `images`, on top of those of `previous`.

        With `compress` they are expected as `relay.packed` sends them, with several `streams` over so many connections.
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
        """All in one thread, up to CRIU's end: with the thread that has started it dies who is to die with us."""
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
            self._failure = self._failure or failed  # one that was killed has a reason already
        finally:
            self._begun.set()

    def finish(self) -> None:
        """Wait for the end of the dump. AgentError if its pages have not all come, or nobody has brought any.

        A page server that stands still meanwhile is killed.
        """
        self._admission.close()
        self._begun.wait()
        if self._server is not None:
            progress = criu.Progress(self._images / "page-server.log", self._server.pid)
            while self._thread.is_alive():
                self._thread.join(criu.LOOK_S)
                if self._thread.is_alive() and progress.stands_still():
                    self._server.kill()
                    self._failure = AgentError(f"the page server has stood still for {criu.STANDSTILL_S} s")
                    break
        self._thread.join()
        self._end_relay()
        if self._failure is not None:
            raise AgentError(str(self._failure), "transfer") from self._failure

    def close(self) -> None:
        """No more pages, even if some are missing."""
        self._admission.close()
        self._begun.wait()
        if self._server is not None:
            self._server.kill()  # one that is stopped would not hear anything else
        self._thread.join()
        self._end_relay()

    def _end_relay(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None
