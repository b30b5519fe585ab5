"""Holds back CRIU's fetching ahead until a restored container has found its feet.

CRIU's restore gives its daemon for pages the userfaultfds of all processes over a socket, and says at the end that it
is done. Until that word the daemon brings what is asked for, and sleeps. From then on (4.2, uffd.c, handle_requests) it
fetches all the rest, up to 4 MiB at a time, and does not sleep any more: it takes a whole processor to wait for pages,
and whoever needs one waits for what is on its way. So the word is passed on late. It passes through here, in a program
that outlives the agent: without the word the daemon would take the end of the connection for a failure.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOCKET = "lazy-pages.socket"
"""Its name in the working directory, with CRIU's restore as with its daemon."""

NUMBER_BYTES = 4
FINISHED = 0x52535446
"""LAZY_PAGES_RESTORE_FINISHED; any other number is a process id, negative for one that has no memory."""


class Door:
    """Listens in a restore's working directory, in the daemon's place."""

    def __init__(self, work: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        with _short(work) as place:
            self._listener.bind(f"{place}/{SOCKET}")
        self._listener.listen(1)

    def pass_on(self, daemon_work: Path, came: Callable[[], None], calm: Callable[[], object]) -> None:
        """Wait for the restore, tell that it `came`, and pass on what it says; its last word once `calm` returns.

        Returns when that was said, or the restore is gone.
        """
        restore, _ = self._listener.accept()
        with self._listener, restore, socket.socket(socket.AF_UNIX) as daemon:
            came()
            with _short(daemon_work) as place:
                daemon.connect(f"{place}/{SOCKET}")
            while len(number := restore.recv(NUMBER_BYTES, socket.MSG_WAITALL)) == NUMBER_BYTES:
                said = int.from_bytes(number, "little", signed=True)
                if said == FINISHED:
                    calm()
                daemon.sendall(number)
                if said == FINISHED:
                    return
                if said > 0:
                    _pass_descriptor(restore, daemon)


def _pass_descriptor(here: socket.socket, there: socket.socket) -> None:
    """The kernel ends what is read at once with the message that had a descriptor: nothing behind it is taken."""
    data, descriptors, _, _ = socket.recv_fds(here, 64, 1)
    try:
        if data:
            socket.send_fds(there, [data], descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A name of a directory that is short enough for the address of a socket (108 bytes, unix(7))."""
    held = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{held}"
    finally:
        os.close(held)
