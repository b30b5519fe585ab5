"""The copy of the container at the destination, with its volumes: what goes again unless the migration commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import docker_api, volume_marks
from ..files.flush import Flush
from .afterwards import remove_copy, remove_volume

if TYPE_CHECKING:
    from collections.abc import Callable


class Copy:
    """nothing → made, bit by bit (`adopt`, `take_volumes`) → kept for ever (`keep`), or nothing again (`give_up`).

    Whatever a later phase makes for the container is noted in `before`: what ends so that Docker can remove it, and in
    `after`: what goes once it is removed, the last one first. All of them may be called several times.
    """

    def __init__(self) -> None:
        self.container: str | None = None
        self.volumes: dict[str, str] = {}
        self.before: list[Callable[[], object]] = []
        self.after: list[Callable[[], object]] = []
        self.kept = False
        self._migration = ""

    def adopt(self, container: str | None, volumes: dict[str, str]) -> None:
        """Volumes, and then a container, were created for this migration.

        `volumes` maps names to when Docker says it created them. Returns once the container is on the disk: of one
        whose description a loss of power took, Docker would know nothing afterwards, and its directories would stay.
        """
        self.container = container
        self.volumes = volumes
        if container is not None:
            described = docker_api.call("GET", f"/containers/{container}/json")
            Flush([described["GraphDriver"]["Data"]["UpperDir"]]).wait()

    def take_volumes(self, migration: str, lineages: dict[str, str], created: list[str]) -> None:
        """Before the first byte comes: see `volume_marks.take`."""
        self._migration = migration
        volume_marks.take(migration, lineages, created)

    def keep(self) -> None:
        """It has won: nothing of it goes any more, whatever fails."""
        self.kept = True

    def give_up(self) -> None:
        """It has not won: remove it. What fails is tried again by the next call. Nothing for one that is kept."""
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
