"""A relay between CRIU and a page server, which themselves have no rate, compression or second connection.

Two relays send each other frames. A frame begins with its length in four bytes. The frames go over all connections in
turn. Several connections help where one can't use the whole link: its window is too small for a long round trip, or
packets get lost.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from ..wire import AgentError
from . import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    Carry = Callable[[Sequence[socket.socket], Sequence[socket.socket], "Pace"], None]

CHUNK_BYTES = 1 << 16
PACKED_BYTES = 1 << 18
"""Bytes that are compressed at once, at most. It may be as little as one message, since the relay does not wait for
more."""

LENGTH = struct.Struct(">I")


class Pace:
    """A limit of bytes per second. Call `spent` after each piece: it sleeps until the next is allowed. None: no limit.

    `amount` is the number of bytes sent so far.
    """

    def __init__(self, rate: int | None) -> None:
        self.rate = rate
        self.amount = 0
        self.next = time.monotonic()

    def spent(self, amount: int) -> None:
        """Count these bytes, and sleep if the rate demands it."""
        self.amount += amount
        if self.rate is None:
            return
        self.next = max(self.next, time.monotonic() - CHUNK_BYTES / self.rate) + amount / self.rate
        time.sleep(max(0.0, self.next - time.monotonic()))


def plain(origins: Sequence[socket.socket], targets: Sequence[socket.socket], pace: Pace) -> None:
    """Forward bytes unchanged, from one connection to one other."""
    while data := origins[0].recv(CHUNK_BYTES):
        targets[0].sendall(data)
        pace.spent(len(data))


def _as_frames(pack: Callable[[bytes], bytes]) -> Carry:
    def carry(origins: Sequence[socket.socket], targets: Sequence[socket.socket], pace: Pace) -> None:
        turns = itertools.cycle(targets)
        while data := origins[0].recv(PACKED_BYTES):
            frame = pack(data)
            next(turns).sendall(LENGTH.pack(len(frame)) + frame)
            pace.spent(LENGTH.size + len(frame))

    return carry


def _of_frames(unpack: Callable[[bytes], bytes]) -> Carry:
    def carry(origins: Sequence[socket.socket], targets: Sequence[socket.socket], pace: Pace) -> None:
        for reader in itertools.cycle([origin.makefile("rb") for origin in origins]):
            head = reader.read(LENGTH.size)
            if not head:
                return
            size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
            frame = reader.read(size) if size <= 2 * PACKED_BYTES else b""
            if not size or len(frame) != size:
                raise AgentError("the relay's connection ended within a frame")
            data = unpack(frame)
            targets[0].sendall(data)
            pace.spent(len(data))

    return carry


packed = _as_frames(zstd.compress)
"""Compress, and send as frames."""

unpacked = _of_frames(lambda frame: zstd.expand(frame, PACKED_BYTES))
"""Expand what `packed` has sent. AgentError for invalid data."""

spread = _as_frames(bytes)
"""Send as frames, without compression."""

joined = _of_frames(bytes)
"""Join what `spread` has sent."""


class Relay:
    """Forwards data from `origins`, which are read in turn, to `targets`. Answers go back over the first of both.

    The relay then owns the connections. Use it as `with Relay(…) as relay`, or by `open` and `close`. Between two
    relays there may be several connections.
    """

    def __init__(
        self,
        origins: Sequence[socket.socket],
        targets: Sequence[socket.socket],
        *,
        rate: int | None = None,
        carry: Carry = plain,
    ) -> None:
        self._origins, self._targets = origins, targets
        self._pace = Pace(rate)
        self._carry_on = carry
        self._thread = threading.Thread(target=self._carry, daemon=True, name="relay")

    def open(self) -> Relay:
        """Start forwarding, in threads."""
        self._thread.start()
        return self

    @property
    def sent(self) -> int:
        """Bytes forwarded so far."""
        return self._pace.amount

    def close(self) -> None:
        """No more."""
        for each in (*self._origins, *self._targets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        for each in (*self._origins, *self._targets):
            each.close()

    def __enter__(self) -> Relay:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _carry(self) -> None:
        answers = ([self._targets[0]], [self._origins[0]], plain, Pace(None))
        back = threading.Thread(target=_pump, args=answers, daemon=True)
        back.start()
        _pump(self._origins, self._targets, self._carry_on, self._pace)
        back.join()


def _pump(
    origins: Sequence[socket.socket], targets: Sequence[socket.socket], carry: Carry, pace: Pace
) -> None:
    with contextlib.suppress(OSError, AgentError):
        carry(origins, targets, pace)
    for those, how in ((targets, socket.SHUT_WR), (origins, socket.SHUT_RD)):
        for each in those:
            with contextlib.suppress(OSError):  # both sides learn that nothing more comes or is read
                each.shutdown(how)
