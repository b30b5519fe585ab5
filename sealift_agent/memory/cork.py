"""Send at once what CRIU holds back on its connection to a page server.

CRIU corks this connection (tcp(7), TCP_CORK). It uncorks it where it waits for an answer, but not where it closes the
connection (4.2.1, `disconnect_from_page_server`). So the last pages and the closing message stay in the kernel for up
to 200 ms, while the container is frozen. Setting TCP_NODELAY sends them even if the socket is corked. The option
belongs to the socket, whoever sets it. So the agent, which made the connection, sets it again and again.
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
    """Within a block, send at once what another process holds back on this connection. With None, do nothing."""

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
