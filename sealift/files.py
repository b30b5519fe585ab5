"""Files read and written with bounds: never more is read than the file's format can have.

A file that is not a regular file is refused before it is opened: a pipe would block, and a device may be endless.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEASURED_LIMIT = 512 * 1024 * 1024
"""Bytes of a kernel or an initrd: several times the largest that a guest's firmware can load."""

_PIECE = 1024 * 1024
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes. A larger file is refused. Never blocks."""
    return b"".join(_pieces(path, limit))


def hash_file(path: Path, limit: int = MEASURED_LIMIT) -> bytes:
    """SHA-256 of a file of at most `limit` bytes, in pieces; a larger one is refused."""
    digest = hashlib.sha256()
    for piece in _pieces(path, limit):
        digest.update(piece)
    return digest.digest()


def make_folder(path: Path) -> None:
    """Make a folder, and its parents, unless they exist."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableInput(
            f"{path} cannot be made: {error.strerror}", remedy="Choose another place"
        ) from error


def write_new(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a new file. An existing file is never overwritten. `private`: only its owner can read it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(path, flags, 0o600 if private else 0o644), "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise UnusableInput(f"{path} is there already", remedy="Choose another place or remove it") from error
    except OSError as error:
        raise UnusableInput(
            f"{path} cannot be written: {error.strerror}", remedy="Choose another place"
        ) from error


def _pieces(path: Path, limit: int) -> Iterator[bytes]:
    with _opened(path, limit) as file:
        rest = limit + 1
        while rest:
            try:
                piece = os.read(file, min(_PIECE, rest))
            except OSError as error:
                raise _unreadable(path, error) from error
            if not piece:
                return
            yield piece
            rest -= len(piece)
    # It has grown, or its file system does not report its size.
    raise _too_large(path, limit)


@contextmanager
def _opened(path: Path, limit: int) -> Iterator[int]:
    try:
        _refuse(path, path.stat(), limit)
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        # The file may have been replaced in the meantime.
        _refuse(path, os.fstat(file), limit)
        yield file
    finally:
        os.close(file)


def _refuse(path: Path, state: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "of another kind")
        raise UnusableInput(f"{path} is not a file but {kind}", remedy="Write its content into a file first")
    if state.st_size > limit:
        raise _too_large(path, limit)


def _too_large(path: Path, limit: int) -> UnusableInput:
    return UnusableInput(
        f"{path} is larger than the {limit} bytes that its format allows", remedy="Is it the right file?"
    )


def _unreadable(path: Path, error: OSError | ValueError) -> UnusableInput:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return UnusableInput(f"{path} cannot be read: {reason}", remedy="Check the path and its permissions")
