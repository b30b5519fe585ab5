"""What CRIU keeps back on its way to a page server is pushed on.

CRIU corks that connection (tcp(7), TCP_CORK), pushes where it waits for an answer, and forgets to where it takes its
leave (4.2.1, `disconnect_from_page_server`): the last pages and the farewell stay in the kernel until its ceiling of
200 ms, with the container frozen. Setting TCP_NODELAY sends what is held back, corked or not, and it is an option of
the socket, not of who sets it: the agent, which has made the connection, keeps setting it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

PUSH_S = 0.002


class Pushed:
    """For the length of a block: what others send by this connection is not held back. None: nothing is done."""

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._push, daemon=True, name="cork")

    def __enter__(self) -> Pushed:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _push(self) -> None:
        with contextlib.suppress(OSError):
            while self._connection is not None and not self._over.wait(PUSH_S):
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
