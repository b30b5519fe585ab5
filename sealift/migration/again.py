"""Try a migration again after a rollback: the container runs at the source as before, and the cause may be gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sealift.errors import MigrationFailed
from sealift.model import CUTOVER

if TYPE_CHECKING:
    from collections.abc import Callable

Made = TypeVar("Made")


def again_after_rollback(once: Callable[[], Made], retries: int) -> tuple[Made, list[str]]:
    """Run a migration, and run it again if its cutover was rolled back, at most `retries` times.

    Returns the result, and a sentence for each rollback. Any other error is raised at once: a refusal stays one, and
    after a commit nothing may be repeated.
    """
    rollbacks: list[str] = []
    while True:
        try:
            return once(), rollbacks
        except MigrationFailed as failed:
            if failed.step not in CUTOVER or len(rollbacks) >= retries:
                raise
            rollbacks.append(f"rolled back at first, and tried again: {failed}")
