"""The socket at which CRIU's restore hands over its processes' memory. It takes the place of CRIU's own pager.

With `--lazy-pages` CRIU connects to a socket in its working directory. For each process it sends the process's number
in the container, and then its userfaultfd. At the end it says that all are restored (criu 4.2, uffd.c).
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

RESTORE_ENDED = 3
"""How the pager ends if the restore was over first."""

NUMBER_BYTES = 4
FINISHED = 0x52535446
"""LAZY_PAGES_RESTORE_FINISHED; any other number is a process id, negative for one that has no memory."""


class Handed(NamedTuple):
    """The memory of one process, as a userfaultfd. `process` is its number in the container."""

    process: int
    descriptor: int


class RestoreEnded(AgentError):
    """The restore is over with memory missing. Its own log has the reason."""


class LazyPagesSocket:
    """Listens in a restore's working directory, and then has the restore's connection."""

    def __init__(self, work: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self.came = self.finished = False
        # The whole name may be too long for the address of a socket (108 bytes, unix(7)).
        held = os.open(work, os.O_PATH | os.O_DIRECTORY)
        try:
            self._socket.bind(f"/proc/self/fd/{held}/{SOCKET}")
        finally:
            os.close(held)
        self._socket.listen(1)

    def fileno(self) -> int:
        """For a selector: readable when the restore connects or sends something.

        The number changes when it has connected.
        """
        return self._socket.fileno()

    def accept(self) -> None:
        """Accept the restore's connection."""
        listener, (self._socket, _) = self._socket, self._socket.accept()
        listener.close()
        self.came = True

    def take(self) -> Handed | None:
        """What the restore has sent next: a process's memory; None for a process without any, and at the end.

        After the end it is `finished`. RestoreEnded if it has ended before that. What comes later is not waited for: a
        process may need a page before.
        """
        number = self._socket.recv(NUMBER_BYTES, socket.MSG_WAITALL)
        if len(number) != NUMBER_BYTES:
            raise RestoreEnded("the restore has ended before all was restored", "restore")
        said = int.from_bytes(number, "little", signed=True)
        self.finished = said == FINISHED
        if self.finished or said <= 0:
            return None
        # One read ends with the message that has a descriptor, so nothing after it is read.
        _, (descriptor, *_), _, _ = socket.recv_fds(self._socket, 64, 1)
        return Handed(said, descriptor)

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()
