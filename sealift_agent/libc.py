"""The C library, for system calls that Python 3.9 has no function for."""

from __future__ import annotations

import ctypes
import os

_library = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object, about: str | bytes | None = None) -> int:
    """Call a function that returns a negative number where it fails: then OSError, `about` this file, if any.

    A buffer, a path in bytes and an integer of 32 bits are given as they are; anything else as a type of `ctypes`.
    """
    found = int(getattr(_library, name)(*arguments))
    if found < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed), about)
    return found


def system_call(number: int, *arguments: object, about: str | bytes | None = None) -> int:
    """Make a system call that the library itself may have no function for. OSError as of `call`."""
    return call("syscall", number, *arguments, about=about)
