"""A directory that keeps what is slow to make: each file made once, whole, for its owner's eyes only."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Store:
    """Files by name in a directory of mode 0700."""

    directory: Path

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The file of that name, made now if there is none. Two processes at once make one."""
        path = self.directory / name
        if not path.exists():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The kernel lets go of the lock when its holder ends, however that is.
            with (self.directory / f".{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not path.exists():
                    _write_whole(path, make())
        return path.read_bytes()


def _write_whole(path: Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    new.rename(path)
