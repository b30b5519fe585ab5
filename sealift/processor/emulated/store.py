"""A directory with files that are slow to make: each is made once, atomically, and only its owner can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.locks import alone
from sealift.private import write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Store:
    """Files by name in a directory of mode 0700."""

    directory: Path

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The content of the file of that name, which is made if it does not exist. Two processes make only one."""
        path = self.directory / name
        if not path.exists():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with alone(self.directory / f".{name}.lock"):
                if not path.exists():
                    write_private(path, make())
        return path.read_bytes()
