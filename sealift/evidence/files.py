"""Reading and writing files for the command line: an edge. Never more is read than a format can have."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from pathlib import Path

_PIECE = 1024 * 1024


def read_bounded(path: Path, limit: int) -> bytes:
    """A file of at most `limit` bytes. A larger one is refused after `limit` + 1 of them."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > limit:
        raise UnusableInput(
            f"{path} is larger than the {limit} bytes that its format allows", remedy="Is it the right file?"
        )
    return data


def hash_file(path: Path) -> bytes:
    """SHA-256 of a file of any size, in pieces."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.digest()


def write_new(path: Path, data: bytes, *, private: bool = False) -> None:
    """A new file; one that exists is never written over. `private`: for the owner's eyes only."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(path, flags, 0o600 if private else 0o644), "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise UnusableInput(f"{path} is there already", remedy="Choose another place or remove it") from error
    except OSError as error:
        raise UnusableInput(f"{path} cannot be written: {error.strerror}") from error


def _unreadable(path: Path, error: OSError) -> UnusableInput:
    return UnusableInput(
        f"{path} cannot be read: {error.strerror}", remedy="Check the path and its permissions"
    )
