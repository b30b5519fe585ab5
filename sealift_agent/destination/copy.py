"""The container's copy at the destination, with its volumes. It is removed unless the migration commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import volume_marks, writable_layer
from ..files.flush import Flush
from .afterwards import remove_copy, remove_volume

if TYPE_CHECKING:
    from collections.abc import Callable


class Copy:
    """States: nothing → made step by step (`adopt`, `take_volumes`) → kept (`keep`), or removed (`give_up`).

    Later phases add to `before` what must end before Docker can remove the container, and to `after` what is removed
    afterwards, in reverse order. All methods may be called several times.
    """

    def __init__(self) -> None:
        self.container: str | None = None
        self.volumes: dict[str, str] = {}
        self.before: list[Callable[[], object]] = []
        self.after: list[Callable[[], object]] = []
        self.kept = False
        self._migration = ""

    def adopt(self, container: str | None, volumes: dict[str, str]) -> None:
        """Register volumes, and then a container, that were created for this migration.

        `volumes` maps names to the times of creation that Docker reports. Returns when the container is on the disk. If
        a loss of power took its description, Docker would not know it afterwards, and its directories would stay.
        """
        self.container = container
        self.volumes = volumes
        if container is not None:
            Flush([writable_layer.find(container)]).wait()

    def take_volumes(self, migration: str, lineages: dict[str, str], created: list[str]) -> None:
        """Take the volumes before the first byte comes: see `volume_marks.take`."""
        self._migration = migration
        volume_marks.take(migration, lineages, created)

    def keep(self) -> None:
        """Keep it, since it has won. Nothing of it is removed, whatever fails later."""
        self.kept = True

    def give_up(self) -> None:
        """Remove it, since it has not won. The next call retries what fails. Does nothing if it is kept."""
        if self.kept:
            return
        for end in self.before:
            end()
        if self.container is not None:
            remove_copy(self.container, self.volumes)
        for end in reversed(self.after):
            end()
        for volume, created in self.volumes.items():
            remove_volume(volume, created)
        volume_marks.give_back(self._migration)
        self.container, self.volumes = None, {}
        self.before, self.after = [], []
