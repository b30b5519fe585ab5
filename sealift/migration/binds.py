"""Where the bind mounts of a container lie at the destination."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.inventory import Inventory


@dataclass(frozen=True)
class Binds:
    """`pairs`: paths of the source, each with its path at the destination. A pair covers all that is beneath it.

    `as_they_are`: whether what no pair covers has the same path there.
    """

    pairs: tuple[tuple[PurePosixPath, PurePosixPath], ...] = ()
    as_they_are: bool = False

    @classmethod
    def of(
        cls, inventory: Inventory, source: str, destination: str, given: Sequence[str], *, as_they_are: bool
    ) -> Binds:
        """Those that the inventory gives one name on both hosts, and those that are `given`: see `pair`."""
        here, there = inventory.host(source).binds, inventory.host(destination).binds
        named = tuple(
            (PurePosixPath(path), PurePosixPath(there[name])) for name, path in here.items() if name in there
        )
        return cls((*named, *map(pair, given)), as_they_are)

    def target(self, source: str) -> str | None:
        """Where a path of the source lies at the destination; None if nothing says so.

        The pair that covers least is taken, and of equal ones the last: an option comes after the inventory.
        """
        path = PurePosixPath(source)
        covering = [each for each in self.pairs if path.is_relative_to(each[0])]
        if covering:
            here, there = max(reversed(covering), key=lambda each: len(each[0].parts))
            return str(there / path.relative_to(here))
        return source if self.as_they_are else None

    def is_named(self, source: str) -> bool:
        """Whether a pair covers the path: then somebody has said that what lies there may be replaced."""
        return any(PurePosixPath(source).is_relative_to(here) for here, _ in self.pairs)


NO_BINDS = Binds()


def pair(text: str) -> tuple[PurePosixPath, PurePosixPath]:
    """The two paths of `HOST_PATH=DESTINATION_PATH`. ValueError unless both are absolute."""
    here, equals, there = text.partition("=/")
    if not equals or not here.startswith("/") or ".." in (*here.split("/"), *there.split("/")):
        raise ValueError(
            f"{text!r} is no pair of paths: write it as /path/at/the/source=/path/at/the/destination"
        )
    return PurePosixPath(here), PurePosixPath(f"/{there}")
