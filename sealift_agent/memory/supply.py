"""The source of pages that a restore leaves out: a dump at the source, or images that are here.

Both are asked for consecutive pages, and give them later, in the same order, when their descriptor is readable.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..constants import PAGE_BYTES
from ..wire import AgentError

if TYPE_CHECKING:
    import socket

    from .rounds import Rounds

MESSAGE = struct.Struct("<IxxxxQQQ")
"""CRIU's format (4.2, page-xfer.c): command, pages, address, process. The pages follow it."""

GET, ADD, FLUSH = 7, 6, 0x1023
COMMAND_BITS = 16
"""PS_IOV_GET, PS_IOV_ADD_F, PS_IOV_FLUSH, PS_CMD_BITS."""


class Pages(NamedTuple):
    """Consecutive pages of one process. `address` is where they were in the dump."""

    process: int
    address: int
    data: bytearray


class Remote:
    """CRIU's page server at the source."""

    block_pages = 32
    """The number of pages that are asked for at once: the needed one and its neighbours."""

    is_far = True
    """Each answer takes a round trip, so pages that will be needed are asked for early."""

    window = 3
    """Questions without an answer yet, at most. They are enough for a busy link, and so few that an urgent one waits
    only shortly."""

    def __init__(self, connection: socket.socket) -> None:
        """`connection` leads to the page server."""
        self._asked: deque[tuple[int, int, int]] = deque()
        self._socket = connection

    def fileno(self) -> int:
        """For a selector: readable when pages come."""
        return self._socket.fileno()

    @property
    def outstanding(self) -> int:
        """The number of questions without an answer yet."""
        return len(self._asked)

    def ask(self, process: int, address: int, pages: int) -> None:
        """Ask for so many pages, from an address on."""
        self._asked.append((process, address, pages))
        try:
            self._socket.sendall(MESSAGE.pack(GET, pages, address, process))
        except OSError as lost:
            raise _lost(lost) from lost

    def take(self) -> Pages:
        """The next answer. If it has fewer pages than were asked for, the rest is asked for again."""
        try:
            command, pages, _, _ = MESSAGE.unpack(self._exactly(MESSAGE.size))
            process, address, wanted = self._asked.popleft()
            if command & ((1 << COMMAND_BITS) - 1) != ADD or not 0 < pages <= wanted:
                raise AgentError(f"the source's page server answers with {command:#x} and {pages} pages")
            data = self._exactly(pages * PAGE_BYTES)
        except OSError as lost:
            raise _lost(lost) from lost
        if pages < wanted:
            self.ask(process, address + pages * PAGE_BYTES, wanted - pages)
        return Pages(process, address, data)

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._socket.recv_into(view)
            if count == 0:
                raise ConnectionError("the connection was closed")
            view = view[count:]
        return data

    def end(self) -> None:
        """Tell the source that nothing more is needed, and wait for its confirmation."""
        try:
            self._socket.sendall(MESSAGE.pack(FLUSH, 0, 0, 0))
            self._exactly(4)
        except OSError as lost:
            raise _lost(lost) from lost
        self._socket.close()


def _lost(why: OSError) -> AgentError:
    return AgentError(f"the source's page server was lost: {why}")


class Local:
    """Images of a dump and of the rounds before it."""

    block_pages = 32
    is_far = False
    window = 1

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._asked: deque[tuple[int, int, int]] = deque()
        # The pipe has one byte for each question, and `window` keeps them few. `os.eventfd` came with Python 3.10.
        self._due, self._mark = os.pipe()

    def fileno(self) -> int:
        """As with Remote."""
        return self._due

    @property
    def outstanding(self) -> int:
        """As with Remote."""
        return len(self._asked)

    def ask(self, process: int, address: int, pages: int) -> None:
        """As with Remote."""
        self._asked.append((process, address, pages))
        os.write(self._mark, b"1")

    def take(self) -> Pages:
        """As with Remote, but without a wait."""
        os.read(self._due, 1)
        process, address, pages = self._asked.popleft()
        return Pages(process, address, self._rounds.read(process, address, pages))

    def end(self) -> None:
        """Close the pipe."""
        os.close(self._due)
        os.close(self._mark)
