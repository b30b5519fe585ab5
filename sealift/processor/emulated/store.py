"""A directory that keeps what is slow to make: each file made once, whole, for its owner's eyes only."""

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
        """The file of that name, made now if there is none. Two processes at once make one."""
        path = self.directory / name
        if not path.exists():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with alone(self.directory / f".{name}.lock"):
                if not path.exists():
                    write_private(path, make())
        return path.read_bytes()
