"""A program whose opens are made by this process, so that they are silent (`silent`): rsync reads a container's files.

The kernel stops the program at openat(2) and asks a listener here (seccomp_unotify(2)), which opens the file and puts
the descriptor into the program. Only relative names, for reading, are opened here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from .. import libc
from . import silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

OPENAT = {"x86_64": (257, 0xC000003E), "aarch64": (56, 0xC00000B7)}
"""By the machine: the call's number, and the kernel's word for the machine (linux/audit.h)."""

LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
"""linux/bpf_common.h, linux/seccomp.h."""

INSTRUCTION = struct.Struct("=HBBI")
SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_FILTER, NEW_LISTENER = 1, 8
RECEIVE, SEND, ADD_DESCRIPTOR = 0xC0502100, 0xC0182101, 0x40182103
NOTICE = struct.Struct("=QIIiIQ6Q")
"""seccomp_notif: identity, thread, flags, number, machine, place, six arguments."""

ANSWER = struct.Struct("=QqiI")
GO_ON = 1
ADDED = struct.Struct("=QIIII")
AND_SEND = 2
"""seccomp_notif_resp and seccomp_notif_addfd, with SECCOMP_USER_NOTIF_FLAG_CONTINUE and SECCOMP_ADDFD_FLAG_SEND."""

WORKING_DIRECTORY = (1 << 32) - 100
PATH_BYTES = 4096


def obtainable() -> bool:
    """Whether this machine is known."""
    return os.uname().machine in OPENAT


def _filter() -> ctypes.Array[ctypes.c_char]:
    call, machine = OPENAT[os.uname().machine]
    return ctypes.create_string_buffer(
        b"".join(
            INSTRUCTION.pack(*one)
            for one in (
                (LOAD, 0, 0, 4),
                (JUMP_IF_EQUAL, 0, 3, machine),
                (LOAD, 0, 0, 0),
                (JUMP_IF_EQUAL, 0, 1, call),
                (RETURN, 0, 0, NOTIFY),
                (RETURN, 0, 0, ALLOW),
            )
        )
    )


def start(command: Sequence[str], *, silently: bool, **options: Any) -> subprocess.Popen[bytes]:
    """Start a program, with the options of `subprocess.Popen`. Its opens are made here if it is to be silent."""
    if not silently:
        return subprocess.Popen(command, **options)
    with Trap() as trap:
        process = subprocess.Popen(command, preexec_fn=trap.begin, **options)  # noqa: PLW1509 - two system calls
        trap.serve()
    return process


class Trap:
    """Traps one program: `begin` is to be called in it before it starts, and `serve` here once it has started."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        code = _filter()
        self._program = struct.pack("=HxxxxxxQ", len(code) // INSTRUCTION.size, ctypes.addressof(code))
        self._code, self._number = code, SECCOMP[os.uname().machine]

    def begin(self) -> None:
        """In the new process, between fork and exec."""
        listener = libc.system_call(self._number, SET_FILTER, NEW_LISTENER, self._program)
        socket.send_fds(self._there, [b"\0"], [listener])

    def serve(self) -> None:
        """Answer the program until it has ended."""
        self._there.close()
        with self._here:
            _, descriptors, _, _ = socket.recv_fds(self._here, 1, 1)
        if descriptors:
            threading.Thread(target=_serve, args=(descriptors[0],), daemon=True, name="trapped").start()

    def __enter__(self) -> Trap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, at: TracebackType | None
    ) -> None:
        self._there.close()
        self._here.close()


def _serve(listener: int) -> None:
    asked = select.poll()
    asked.register(listener, select.POLLIN)
    try:
        while not asked.poll()[0][1] & select.POLLHUP:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                _answer(listener)
    finally:
        os.close(listener)


def _answer(listener: int) -> None:
    notice = bytearray(NOTICE.size)
    fcntl.ioctl(listener, RECEIVE, notice)
    identity, thread, _, _, _, _, place, name, flags, *_ = NOTICE.unpack(notice)
    path = _string(thread, name)
    if not path or path.startswith(b"/") or flags & (os.O_ACCMODE | os.O_CREAT | silent.PATH_ONLY):
        _send(listener, identity, 0, GO_ON)
        return
    place &= 0xFFFFFFFF
    try:
        opened = _open(
            f"/proc/{thread}/{'cwd' if place == WORKING_DIRECTORY else f'fd/{place}'}",
            path,
            flags & 0xFFFFFFFF,
        )
    except OSError as failed:
        _send(listener, identity, -(failed.errno or errno.EIO), 0)
        return
    try:
        added = ADDED.pack(identity, AND_SEND, opened, 0, flags & os.O_CLOEXEC)
        fcntl.ioctl(listener, ADD_DESCRIPTOR, added)
    finally:
        os.close(opened)


def _open(place: str, path: bytes, flags: int) -> int:
    directory = os.open(place, silent.PATH_ONLY | os.O_DIRECTORY)
    try:
        return silent.quietly(lambda: os.open(path, flags | os.O_CLOEXEC, dir_fd=directory))
    finally:
        os.close(directory)


def _string(thread: int, address: int) -> bytes:
    """A string in the program's memory: it waits, so it does not change."""
    memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    found = b""
    try:
        while b"\0" not in found and len(found) < PATH_BYTES:
            # To the end of a page at most, since the next one may not be there.
            at = address + len(found)
            found += os.pread(memory, min(256, 4096 - at % 4096), at) or b"\0"
    finally:
        os.close(memory)
    return found.partition(b"\0")[0]


def _send(listener: int, identity: int, result: int, flags: int) -> None:
    fcntl.ioctl(listener, SEND, bytearray(ANSWER.pack(identity, 0, result, flags)))
