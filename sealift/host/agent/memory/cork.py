"""What CRIU keeps back on its way to a page server is pushed on.

CRIU corks that connection (tcp(7), TCP_CORK), pushes where it waits for an answer, and forgets to where it takes its
leave (4.2.1, `disconnect_from_page_server`): the last pages and the farewell stay in the kernel until its ceiling of
200 ms, with the container frozen. Setting TCP_NODELAY sends what is held back, corked or not, and it is an option of
the socket, not of who sets it: this process takes a descriptor of CRIU's socket (pidfd_getfd(2)) and keeps setting it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from .. import criu, pidfd

if TYPE_CHECKING:
    from types import TracebackType

PUSH_S = 0.002


class Pushed:
    """For the length of a block: what process `pid` or one it has started sends to `there` is not held back.

    Where the kernel lets nobody have another's socket, all is as without this.
    """

    def __init__(self, pid: int, there: tuple[str, int]) -> None:
        self._pid = pid
        self._there = there
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._push, daemon=True, name="cork")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _push(self) -> None:
        found = None
        while found is None and not self._over.wait(PUSH_S):
            found = self._find()
        if found is None:
            return
        with found, contextlib.suppress(OSError):
            while not self._over.wait(PUSH_S):
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _find(self) -> socket.socket | None:
        for pid in criu.tree(self._pid):
            with contextlib.suppress(OSError):
                for path in Path(f"/proc/{pid}/fd").iterdir():
                    if str(path.readlink()).startswith("socket:"):
                        found = socket.socket(fileno=pidfd.borrow(pid, int(path.name)))
                        if _peer(found) == self._there:
                            return found
                        found.close()
        return None


def _peer(found: socket.socket) -> tuple[str, int] | None:
    try:
        return found.getpeername()[:2] if found.family == socket.AF_INET else None
    except OSError:
        return None
