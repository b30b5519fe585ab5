"""The images of a dump, put right where CRIU would restore something else than there was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import left_behind, session_terminals, timerfd

if TYPE_CHECKING:
    from pathlib import Path

    from .container import Container


def mend(images: Path, container: Container) -> None:
    """Change what CRIU has written, before it goes to the destination."""
    timerfd.start_again(images)
    session_terminals.mend(images, container.first)
    left_behind.lead_nowhere(images, container.first, container.left.pipes)
    left_behind.hang_up(images, container.first, container.left.terminals)
