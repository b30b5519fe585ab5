"""Another try after a rollback: the container runs at the source as before, and what stood in the way may be gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sealift.errors import MigrationFailed
from sealift.model import CUTOVER

if TYPE_CHECKING:
    from collections.abc import Callable

Made = TypeVar("Made")


def again_after_rollback(once: Callable[[], Made], retries: int) -> tuple[Made, list[str]]:
    """Run a migration, and again if its cutover was rolled back, so many times at most.

    Returns what it made, and a sentence for each rollback. Anything but a rollback is raised at once: a refusal stays
    one, and after a commit there is nothing to repeat.
    """
    rollbacks: list[str] = []
    while True:
        try:
            return once(), rollbacks
        except MigrationFailed as failed:
            if failed.step not in CUTOVER or len(rollbacks) >= retries:
                raise
            rollbacks.append(f"rolled back at first, and tried again: {failed}")
