"""TCP connections that a killed CRIU has left in the state in which it dumps them (TCP_REPAIR, tcp(7)).

In this state nothing is sent, and a write fails with EINVAL. A program then assumes that the connection is broken and
closes it, and the other end is not told. CRIU ends the state itself when it fails, but not when it is killed.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from .. import held, pidfd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..held import Held

TCP_REPAIR, OFF = 19, 0
"""linux/tcp.h. With this value the kernel tells the other end at once that the connection is alive."""


def end(pids: Iterable[int]) -> int:
    """End this state for the connections of these processes, before they run again. Returns their number."""
    found = 0
    for one in held.descriptors(pids):
        if one.target.startswith("socket:"):
            with contextlib.suppress(OSError):  # it is not a socket of TCP
                found += _end(one)
    return found


def _end(one: Held) -> bool:
    """End the state of this socket. Returns whether it was in it."""
    with pidfd.borrow_socket(one.pid, one.number) as connection:
        if not connection.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR):
            return False
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF)
        return True
