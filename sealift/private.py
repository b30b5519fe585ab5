"""Files for their owner's eyes only: folders of mode 0700, files of mode 0600, written whole and onto the disk."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from sealift.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path


def private_folder(folder: Path) -> Path:
    """The folder, made if it is not there. Refused where others may look into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if state.st_mode & 0o077 or state.st_uid != os.geteuid():
        raise Refused(
            f"{folder} is not for its owner's eyes only (mode {state.st_mode & 0o777:o}, user {state.st_uid})",
            remedy=f"Find out who could read it, then `chmod 700 {folder}`",
        )
    return folder


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file. With `replace` off, FileExistsError where there is one already."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            new.rename(path)
        else:
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was made, renamed or removed in a folder is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
