"""Unix sockets whose file was renamed since they were bound: CRIU 4.2 binds them under the old name, and leaves it.

The kernel tells of such a socket the name that it was bound by, and by SIOCUNIXFILE (linux/un.h) its file itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import posixpath
import socket
from pathlib import Path

from ..wire import AgentError
from . import beneath

SIOCUNIXFILE = 0x89E0


def present(found: socket.socket) -> str | None:
    """Where in its mount namespace the file of a Unix socket is now, if it has one."""
    try:
        handle = fcntl.ioctl(found, SIOCUNIXFILE)
    except OSError:  # it is bound to none
        return None
    try:
        return str(Path(f"/proc/self/fd/{handle}").readlink()) if os.fstat(handle).st_nlink else None
    finally:
        os.close(handle)


def needed(found: socket.socket) -> str | None:
    """The present name of a bound socket's file, where it may be another one than CRIU will give it.

    A connection that was accepted has the name of its listener, and needs none.
    """
    name = found.getsockname()
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not name or name.startswith("\0") or _is_connected(found):
        return None
    now = present(found)
    return None if now is None or now == posixpath.normpath(name) else now


def _is_connected(found: socket.socket) -> bool:
    if found.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_DGRAM:
        return False
    try:
        found.getpeername()
    except OSError:
        return False
    return True


def rename(found: socket.socket, name: str, root: str) -> bool:
    """Give the file of a restored socket its present name again, below the directory `root`.

    Returns whether it had another one. AgentError if it can't be had.
    """
    now = present(found)
    if now == name:
        return False
    if now is None:
        raise AgentError(f"the restored Unix socket {name} has no file", "restore")
    try:
        with contextlib.ExitStack() as stack:
            top = stack.enter_context(beneath.tree(root))
            here = stack.enter_context(beneath.directory(top, posixpath.dirname(now).strip("/")))
            there = stack.enter_context(beneath.directory(top, posixpath.dirname(name).strip("/")))
            os.rename(posixpath.basename(now), posixpath.basename(name), src_dir_fd=here, dst_dir_fd=there)
    except OSError as failed:
        why = os.strerror(failed.errno or errno.EIO)
        raise AgentError(
            f"the restored Unix socket {now} can't be renamed to {name}, as it was at the source: {why}",
            "restore",
        ) from failed
    return True
