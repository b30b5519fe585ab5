"""What waits to be read by a program and CRIU 4.2 neither takes along nor complains about.

Events of inotify and fanotify: reading them is the only way to see them. The error that a connection has ended with,
and data before it: a restored socket tells of an ordinary end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import time
from typing import TYPE_CHECKING

from . import held, pidfd
from .network import options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .held import Held
    from .network.options import Kind

EVENTS, END = "events unread", "end of a connection unread"
SENTENCES = {
    EVENTS: "events of inotify or fanotify wait unread, which CRIU would lose",
    END: "a connection was reset or has failed and the program has not read that yet, which CRIU would forget",
}
POLL_S = 0.005


def find(found: Iterable[Held]) -> dict[Held, str]:
    """Which of these descriptors something waits at: EVENTS, or END."""
    held_open = list(found)
    waits = events(held_open)
    for one in held_open:
        if one.target.startswith("socket:["):
            with contextlib.suppress(OSError), pidfd.borrow_socket(one.pid, one.number) as ours:
                if is_end(ours):
                    waits[one] = END
    return waits


def events(found: Iterable[Held]) -> dict[Held, str]:
    """Which of these descriptors have events that wait."""
    waits = {}
    for one in held.notifiers(found):
        with contextlib.suppress(OSError):
            if _bytes(one):
                waits[one] = EVENTS
    return waits


def is_end(found: socket.socket, which: Kind | None = None) -> bool:
    """Whether a connection has ended with an error, or with data, that was not read. It is not read by this either.

    SO_ERROR would clear it. A socket that was never connected has neither. `which` is its kind, if that is known.
    """
    family, kind, protocol = which or options.kind(found)
    if (kind, protocol) != (socket.SOCK_STREAM, socket.IPPROTO_TCP) or family not in {
        socket.AF_INET,
        socket.AF_INET6,
    }:
        return False
    if options.state(found) != options.CLOSED:
        return False
    asked = select.poll()
    asked.register(found, 0)
    said = asked.poll(0)
    return bool(said and said[0][1] & select.POLLERR)


def _bytes(one: Held) -> int:
    ours = pidfd.borrow(one.pid, one.number)
    try:
        return size(ours)
    finally:
        os.close(ours)


def size(descriptor: int) -> int:
    """The bytes that can be read at once."""
    found: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
    return found


def lasting(pids: Iterable[int], patience_s: float) -> dict[Held, str]:
    """Where something waits for so long without a moment in which all of it was read."""
    waits = find(held.descriptors(pids))
    until = time.monotonic() + patience_s
    while waits and time.monotonic() < until:
        time.sleep(POLL_S)
        now = find(waits)
        waits = {one: word for one, word in waits.items() if one in now}
    return waits


def why(waits: dict[Held, str]) -> str:
    """The sentence for a person. Something has to wait."""
    said = "; ".join(SENTENCES[word] for word in sorted(set(waits.values())))
    return f"{said}: try again once the program has read them"
