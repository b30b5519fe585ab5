"""TCP connections that a killed CRIU has left in the state that it dumps them in (TCP_REPAIR, tcp(7)).

In it nothing is sent, and who writes is told EINVAL: a program takes that for a broken connection and closes it, of
which the other end hears nothing. CRIU puts them right itself when it fails; one that was killed can't.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from .. import pidfd

if TYPE_CHECKING:
    from collections.abc import Iterable

TCP_REPAIR, OFF = 19, 0
"""linux/tcp.h. Switched off so, the kernel tells the other end at once that it is there."""


def end(pids: Iterable[int]) -> int:
    """Put right the connections of these processes, before they run again. Returns how many there were."""
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # it is not a socket of TCP
                    if str(entry.readlink()).startswith("socket:"):
                        found += _end(pidfd.borrow(pid, int(entry.name)))
    return found


def _end(descriptor: int) -> bool:
    """Whether this socket was in that state. It is not afterwards."""
    with socket.socket(fileno=descriptor) as connection:
        if not connection.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR):
            return False
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF)
        return True
