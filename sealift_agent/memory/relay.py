"""What stands between CRIU and a page server, who know neither rates, compression, nor a second connection: a relay.

Between two relays go frames, each behind its length in four bytes, in turn over as many connections as there are. More
than one help where a connection carries less than the link: its window is too small for a long way, or losses slow it.
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
"""How much is compressed in one piece, at most: as little as one message, since nobody waits for more to come."""

LENGTH = struct.Struct(">I")


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


def plain(origins: Sequence[socket.socket], targets: Sequence[socket.socket], pace: Pace) -> None:
    """Carry bytes as they are, from one connection to one."""
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
                raise AgentError("what came in frames ends in the middle")
            data = unpack(frame)
            targets[0].sendall(data)
            pace.spent(len(data))

    return carry


packed = _as_frames(zstd.compress)
"""Compress what comes."""

unpacked = _of_frames(lambda frame: zstd.expand(frame, PACKED_BYTES))
"""Expand what `packed` has sent. AgentError for what is no such thing."""

spread = _as_frames(bytes)
"""As it is, in frames."""

joined = _of_frames(bytes)
"""What `spread` has sent."""


class Relay:
    """Carries on what comes by `origins`, in turn where there are several, by `targets`; answers go back by the first.

    All of them are the relay's from then on. Use as `with Relay(…) as relay`, or by `open` and `close`. Several
    connections lie between two relays.
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
        """Carry, in threads."""
        self._thread.start()
        return self

    @property
    def sent(self) -> int:
        """What went on so far, in bytes."""
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
            with contextlib.suppress(
                OSError
            ):  # both sides learn that there is no more, and that nobody takes more
                each.shutdown(how)
