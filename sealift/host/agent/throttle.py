"""A limit on what goes over the link while the container runs: by sleeping, and for CRIU's pages by a relay."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

from .wire import listen

if TYPE_CHECKING:
    from types import TracebackType

CHUNK_BYTES = 1 << 16
CONNECT_TIMEOUT_S = 20


class Pace:
    """Call `spent` after each piece: it sleeps until the rate, in bytes a second, allows the next. None: no limit."""

    def __init__(self, rate: int | None) -> None:
        self.rate = rate
        self.next = time.monotonic()

    def spent(self, amount: int) -> None:
        """`amount` bytes were sent."""
        if self.rate is None:
            return
        self.next = max(self.next, time.monotonic() - CHUNK_BYTES / self.rate) + amount / self.rate
        time.sleep(max(0.0, self.next - time.monotonic()))


class Relay:
    """One connection to a page server, carried on at a rate: CRIU has no limit of its own.

    Use as `with Relay(address, port, rate) as relay`: CRIU is to connect to `relay.port` on loopback.
    """

    def __init__(self, address: str, port: int, rate: int) -> None:
        self._there = (address, port)
        self._rate = rate
        self._listener = listen("127.0.0.1")
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._carry, daemon=True, name="relay")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _carry(self) -> None:
        with contextlib.suppress(OSError):
            criu, _ = self._listener.accept()
            self._open.append(criu)
            server = socket.create_connection(self._there, CONNECT_TIMEOUT_S)
            self._open.append(server)
            server.settimeout(None)
            back = threading.Thread(target=_pump, args=(server, criu, Pace(None)), daemon=True)
            back.start()
            _pump(criu, server, Pace(self._rate))
            back.join()


def _pump(origin: socket.socket, target: socket.socket, pace: Pace) -> None:
    with contextlib.suppress(OSError):
        while data := origin.recv(CHUNK_BYTES):
            target.sendall(data)
            pace.spent(len(data))
    with contextlib.suppress(OSError):  # either way the other side learns that there is no more
        target.shutdown(socket.SHUT_WR)
