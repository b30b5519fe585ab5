"""What stands between CRIU and a page server, which know neither a limit of their rate nor compression: a relay."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

from . import zstd
from .wire import LOOPBACK, AgentError, listen

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    Carry = Callable[[socket.socket, socket.socket, "Pace"], None]

CHUNK_BYTES = 1 << 16
PACKED_BYTES = 1 << 18
"""How much is compressed in one piece, at most: as little as one message, since nobody waits for more to come."""

LENGTH = struct.Struct(">I")
CONNECT_TIMEOUT_S = 20


class Pace:
    """Call `spent` after each piece: it sleeps until the rate, in bytes a second, allows the next. None: no limit.

    `amount` is what has been spent so far, in bytes.
    """

    def __init__(self, rate: int | None) -> None:
        self.rate = rate
        self.amount = 0
        self.next = time.monotonic()

    def spent(self, amount: int) -> None:
        """`amount` bytes were sent."""
        self.amount += amount
        if self.rate is None:
            return
        self.next = max(self.next, time.monotonic() - CHUNK_BYTES / self.rate) + amount / self.rate
        time.sleep(max(0.0, self.next - time.monotonic()))


def plain(origin: socket.socket, target: socket.socket, pace: Pace) -> None:
    """Carry bytes as they are."""
    while data := origin.recv(CHUNK_BYTES):
        target.sendall(data)
        pace.spent(len(data))


def packed(origin: socket.socket, target: socket.socket, pace: Pace) -> None:
    """Carry what comes compressed: frames, each behind its length in four bytes."""
    while data := origin.recv(PACKED_BYTES):
        frame = zstd.compress(data)
        target.sendall(LENGTH.pack(len(frame)) + frame)
        pace.spent(LENGTH.size + len(frame))


def unpacked(origin: socket.socket, target: socket.socket, pace: Pace) -> None:
    """Carry what frames hold. AgentError for what is none."""
    reader = origin.makefile("rb")
    while head := reader.read(LENGTH.size):
        size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
        frame = reader.read(size) if size <= 2 * PACKED_BYTES else b""
        if not size or len(frame) != size:
            raise AgentError("what came compressed ends in the middle")
        data = zstd.expand(frame, PACKED_BYTES)
        target.sendall(data)
        pace.spent(len(data))


class Relay:
    """One connection to a page server, carried on.

    Use as `with Relay(there, rate=…) as relay`, or by `open` and `close`. Whoever is to be carried connects to
    `relay.port` of `here`.
    """

    def __init__(
        self,
        there: tuple[str, int],
        *,
        here: str = LOOPBACK,
        rate: int | None = None,
        carry: Carry = plain,
    ) -> None:
        self._there = there
        self._pace = Pace(rate)
        self._carry_on = carry
        self._listener = listen(here)
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._carry, daemon=True, name="relay")

    def open(self) -> Self:
        """Wait for the one connection, in a thread."""
        self._thread.start()
        return self

    @property
    def sent(self) -> int:
        """What went on so far, in bytes."""
        return self._pace.amount

    def close(self) -> None:
        """No more."""
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _carry(self) -> None:
        with contextlib.suppress(OSError):
            criu, _ = self._listener.accept()
            self._open.append(criu)
            server = socket.create_connection(self._there, CONNECT_TIMEOUT_S)
            self._open.append(server)
            server.settimeout(None)
            for each in self._open:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(server, criu, plain, Pace(None)), daemon=True)
            back.start()
            _pump(criu, server, self._carry_on, self._pace)
            back.join()


def _pump(origin: socket.socket, target: socket.socket, carry: Carry, pace: Pace) -> None:
    with contextlib.suppress(OSError, AgentError):
        carry(origin, target, pace)
    with contextlib.suppress(OSError):  # either way the other side learns that there is no more
        target.shutdown(socket.SHUT_WR)
