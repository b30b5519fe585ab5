"""Where CRIU's restore hands over the memory of what it restores: in the place of CRIU's own daemon for pages.

With `--lazy-pages` it connects to a socket in its working directory, and gives the userfaultfd of each process, behind
the number that the process has in the container; at the end it says that all are restored (criu 4.2, uffd.c).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from ..wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

SOCKET = "lazy-pages.socket"
"""Its name in the working directory."""

NUMBER_BYTES = 4
FINISHED = 0x52535446
"""LAZY_PAGES_RESTORE_FINISHED; any other number is a process id, negative for one that has no memory."""


class Handed(NamedTuple):
    """The memory of one process, by its number in the container, as a userfaultfd."""

    process: int
    descriptor: int


class LazyPagesSocket:
    """Listens in a restore's working directory, and then has its connection."""

    def __init__(self, work: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self.came = False
        # The whole name may be too long for the address of a socket (108 bytes, unix(7)).
        held = os.open(work, os.O_PATH | os.O_DIRECTORY)
        try:
            self._socket.bind(f"/proc/self/fd/{held}/{SOCKET}")
        finally:
            os.close(held)
        self._socket.listen(1)

    def fileno(self) -> int:
        """For a selector: readable when the restore comes, and when it says something. It changes when it has come."""
        return self._socket.fileno()

    def accept(self) -> None:
        """The restore has come."""
        listener, (self._socket, _) = self._socket, self._socket.accept()
        listener.close()
        self.came = True

    def take(self) -> Handed | None:
        """The next that is handed over; None when all are. AgentError if the restore has ended without saying so."""
        while len(number := self._socket.recv(NUMBER_BYTES, socket.MSG_WAITALL)) == NUMBER_BYTES:
            said = int.from_bytes(number, "little", signed=True)
            if said == FINISHED:
                return None
            if said > 0:
                # What is read at once ends with the message that had a descriptor: nothing behind it is taken.
                _, (descriptor, *_), _, _ = socket.recv_fds(self._socket, 64, 1)
                return Handed(said, descriptor)
        raise AgentError("the restore has ended before all was restored", "restore")

    def close(self) -> None:
        """Nobody comes any more."""
        self._socket.close()
