"""The answering half of the measuring services: each line on a connection is answered by its number and a verdict.

Runs in the container, standard library only. `serve` never returns.
"""

from __future__ import annotations

import selectors
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG = 1024


def serve(port: int, whole: Callable[[], bool]) -> None:
    """Answer on all connections in one thread. `whole` says whether what the service keeps is as it left it."""
    listener = socket.create_server(("0.0.0.0", port), backlog=BACKLOG)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    counts: dict[socket.socket, int] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                counts[connection] = 0
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment] # nothing else is registered
            if not _answer(connection, counts, whole):
                selector.unregister(connection)
                counts.pop(connection)
                connection.close()


def _answer(connection: socket.socket, counts: dict[socket.socket, int], whole: Callable[[], bool]) -> bool:
    """Answer what has arrived on a connection. False when it is over."""
    try:
        data = connection.recv(1 << 12)
        if not data:
            return False
        verdict = "whole" if whole() else "broken"
        for _ in range(data.count(b"\n")):
            counts[connection] += 1
            connection.sendall(f"{counts[connection]} {verdict}\n".encode())
    except OSError:
        return False
    return True
