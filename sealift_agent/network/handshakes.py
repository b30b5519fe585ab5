"""TCP connections that clients have begun and the program has not accepted yet, in another network namespace.

Also of those that the program has closed while they still had data to send: only the kernel has them.

CRIU dumps no listener with a connection in its queue (`In-flight connection`), and restores no half-open one: a client
that has its answer and sends data to a listener that does not know it any more is reset.

Messages are those of linux/sock_diag.h and linux/inet_diag.h. A socket of netlink belongs for good to the namespace in
which it was made.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

from . import inside

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
REQUEST, DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
SYN_RECV, LISTEN = 1 << 3, 1 << 10
CLOSED_HERE = 1 << 4 | 1 << 9 | 1 << 11  # FIN_WAIT1, LAST_ACK, CLOSING
"""States of a socket, as bits (linux/tcp.h, net/tcp_states.h)."""

RECEIVE_BYTES = 1 << 15
HEADER, REQUESTED = struct.Struct("=IHHII"), struct.Struct("=BBBBI48x")
PORT_AT, COUNTS_AT = 4, 56
"""Of `inet_diag_msg`: the port, big-endian; `idiag_rqueue`, which for a listener is the length of its queue,
`idiag_wqueue`, the bytes that nobody has confirmed; the user; the inode, which is 0 if no program has it open."""


class Listed(NamedTuple):
    """A socket of TCP, as the kernel lists it."""

    port: int
    received: int
    unconfirmed: int
    inode: int


class Handshakes:
    """Asks the kernel about one network namespace."""

    def __init__(self, namespace: str) -> None:
        """`namespace` is its path. OSError if it is gone."""
        self._socket = inside.run(
            namespace, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        )

    def unaccepted(self) -> dict[int, int]:
        """How many connections wait in the queues of listeners, by port. Ports without any are left out."""
        waiting: dict[int, int] = {}
        for one in self._listed(LISTEN):
            if one.received:
                waiting[one.port] = waiting.get(one.port, 0) + one.received
        return waiting

    def are_half_open(self) -> bool:
        """Whether a client was answered and has not confirmed that yet. A search through all connections."""
        return bool(self._listed(SYN_RECV))

    def still_sending(self) -> int:
        """How many connections the program has closed though their peer has not got all of the data."""
        # Its end counts as one byte more.
        return sum(not one.inode and one.unconfirmed > 1 for one in self._listed(CLOSED_HERE))

    def _listed(self, states: int) -> list[Listed]:
        found: list[Listed] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            request = REQUESTED.pack(family, socket.IPPROTO_TCP, 0, 0, states)
            length = HEADER.size + len(request)
            self._socket.send(HEADER.pack(length, SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, 0, 0) + request)
            found += self._answer()
        return found

    def _answer(self) -> list[Listed]:
        found: list[Listed] = []
        while True:
            data, at = self._socket.recv(RECEIVE_BYTES), 0
            while at + HEADER.size <= len(data):
                length, kind, *_ = HEADER.unpack_from(data, at)
                body = data[at + HEADER.size : at + length]
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    if -code == errno.ENOENT:  # a kernel without this family
                        return found
                    raise OSError(-code, os.strerror(-code))
                (port,) = struct.unpack_from(">H", body, PORT_AT)
                received, unconfirmed, _, inode = struct.unpack_from("=4I", body, COUNTS_AT)
                found.append(Listed(port, received, unconfirmed, inode))
                at += max(HEADER.size, length + 3 & ~3)

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()
