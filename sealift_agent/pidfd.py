"""Other processes' descriptors, had as descriptors of this one (pidfd_getfd(2)): what they are open on is the same."""

from __future__ import annotations

import os
import socket

from . import libc

PIDFD_GETFD = 438
"""Its number on every architecture (since Linux 5.6)."""


def borrow(pid: int, descriptor: int) -> int:
    """A descriptor for what `descriptor` of a process is open on. OSError where that may not be had."""
    process = os.pidfd_open(pid)
    try:
        return libc.system_call(PIDFD_GETFD, process, descriptor, 0, about=f"/proc/{pid}/fd/{descriptor}")
    finally:
        os.close(process)


def borrow_socket(pid: int, descriptor: int) -> socket.socket:
    """The socket that `descriptor` of a process is open on. OSError where it may not be had.

    UnnamedFamily if it is of a family that has no names for its sockets, as AF_XDP: Python takes none of these.
    """
    ours = borrow(pid, descriptor)
    try:
        return socket.socket(fileno=ours)
    except OSError as unnamed:
        os.close(ours)
        raise UnnamedFamily(*unnamed.args) from unnamed


class UnnamedFamily(OSError):
    """See `borrow_socket`."""
