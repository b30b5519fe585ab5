"""What CRIU does not carry, at the source: read beside its dump and written among its images, or put right in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import inner_groups, left_behind, session_terminals, sockets, task_settings, timerfd, watched_paths
from ..files import watches

if TYPE_CHECKING:
    from pathlib import Path

    from ..files.watches import Paths
    from ..interrupted import Interrupted
    from .container import Container


class Supplement:
    """`read_ahead` while the container runs → `write` while CRIU dumps → `amend` once it has."""

    def __init__(self, container: Container, interrupted: Interrupted) -> None:
        self._container, self._interrupted = container, interrupted
        self._sockets, self._settings = sockets.Source(), task_settings.Source()
        self._watched: Paths = {}

    def read_ahead(self) -> None:
        """Read what takes long and changes little."""
        self._sockets.read_ahead(self._container.processes)
        self._settings.read(self._container.processes)
        self._find_watched()

    def _find_watched(self) -> None:
        container = self._container
        self._watched = watches.find(container.first, container.processes, self._watched)

    def write(self, images: Path) -> None:
        """In the freeze. AgentError for what would be lost."""
        container = self._container
        self._sockets.write(images, container.processes, container.address, events_seen=container.watches)
        self._settings.write(images, container.processes)
        inner_groups.write(images, inner_groups.read(container.first))
        self._find_watched()

    def amend(self, images: Path) -> None:
        """Change the images, in place."""
        container = self._container
        timerfd.start_again(images)
        watched_paths.put(images, self._watched)
        session_terminals.mend(images, container.first)
        left_behind.lead_nowhere(images, container.first, container.left.pipes)
        left_behind.hang_up(images, container.first, container.left.terminals)
        self._interrupted.call_again(images, container.processes)
