"""The terminal of a restored container (`docker run -t`), made before the restore by the agent.

A terminal belongs to a file system of the container (devpts), which CRIU would make at the restore. The agent makes it
instead, with the options of the bundle, and a terminal in it. The library in CRIU mounts it where CRIU would make
another, and hands CRIU the terminal instead of a new one (`interposed`, `SEALIFT_TERMINAL`). There are two reasons:

- The terminal can be given to the session before its processes are made. CRIU gives it afterwards, to the session's
  first process, and all others would be without.
- Containerd's shim has to get the terminal's master from the runtime's `create`, which may return before the restore:
  see `stand_in`. Otherwise runc sends it in the restore.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from .. import libc
from ..wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

DEVPTS = "devpts"
FIRST = "0"
"""The name of a file system's first terminal. Docker's is made before the container runs, so it is this one."""

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
SET_STRING, CREATE = 1, 6
CLOSE_ON_EXEC = 1
MOUNT_FLAGS = {"nosuid": 0x2, "nodev": 0x4, "noexec": 0x8}
"""fsopen(2), fsconfig(2), fsmount(2): numbers on every architecture, linux/mount.h."""

TIOCSPTLCK = 0x40045431
"""asm-generic/ioctls.h: the lock of a terminal's other end."""

NAME = b"/dev/ptmx"
"""What goes with the descriptor over a console socket. Nobody reads it."""


class Console:
    """A terminal that was made before its container. It is open here until `close`, on both ends: else it would end."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """AgentError, and nothing of it stays, if it can't be made."""
        with contextlib.ExitStack() as opened:
            try:
                self.file_system = _file_system(_options(spec))
                opened.callback(os.close, self.file_system)
                self.master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY, dir_fd=self.file_system)
                opened.callback(os.close, self.master)
                fcntl.ioctl(self.master, TIOCSPTLCK, struct.pack("i", 0))
                opened.callback(os.close, os.open(FIRST, os.O_RDWR | os.O_NOCTTY, dir_fd=self.file_system))
            except OSError as failure:
                raise AgentError(
                    f"no terminal can be made for the container: {failure}", "restore"
                ) from failure
            self._opened = opened.pop_all()

    def give(self, console_socket: str) -> None:
        """Send the master to whoever listens at a console socket, as runc does. AgentError if nobody does."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(console_socket)
                rights = array.array("i", [self.master])
                connection.sendmsg([NAME], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as failure:
            raise AgentError(f"containerd takes no terminal: {failure}", "restore") from failure

    def listen(self, path: Path) -> None:
        """Take the master that runc sends at the restore. It is this one, so nobody looks at it."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._opened.callback(listener.close)
        listener.bind(str(path))
        listener.listen()

    def __str__(self) -> str:
        """For the library in CRIU: this process, the file system and the master."""
        return f"{os.getpid()} {self.file_system} {self.master}"

    def close(self) -> None:
        """Close it here. Whoever else has it keeps it."""
        self._opened.close()


def _options(spec: dict[str, Any]) -> list[str]:
    """Those of the bundle's own devpts."""
    for mount in spec["mounts"]:
        if mount["type"] == DEVPTS:
            return [str(word) for word in mount.get("options", [])]
    raise AgentError("the container has a terminal, but no file system for terminals of its own", "restore")


def _file_system(options: list[str]) -> int:
    """A file system for terminals that is mounted nowhere. It ends with the descriptor, unless it is mounted then."""
    context = libc.system_call(FSOPEN, ctypes.c_char_p(DEVPTS.encode()), CLOSE_ON_EXEC)
    try:
        for word in options:
            name, is_given, value = word.partition("=")
            if is_given:
                _configure(context, SET_STRING, name, value)
        _configure(context, CREATE)
        flags = 0
        for word in options:
            flags |= MOUNT_FLAGS.get(word, 0)
        return libc.system_call(FSMOUNT, context, CLOSE_ON_EXEC, flags)
    finally:
        os.close(context)


def _configure(context: int, what: int, name: str | None = None, value: str | None = None) -> None:
    key, text = (ctypes.c_char_p(word.encode() if word is not None else None) for word in (name, value))
    libc.system_call(FSCONFIG, context, what, key, text, 0)
