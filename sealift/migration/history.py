"""How fast migrations between two hosts were. The owner keeps it for the next prediction."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.files import read_bounded
from sealift.private import private_folder, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.inventory import Inventory

SIZE_LIMIT = 1 << 20
UNREADABLE = (UnusableInput, OSError, ValueError, RecursionError)
ASSUMED_FACTOR, ASSUMED_FIXED_MS = 1.5, 3000.0
LEAST, MOST = 0.05, 20.0
"""Of a factor. A migration that tells more has met something that no prediction knows."""

NEW = 0.4
"""The weight of the last migration. One that was disturbed does not undo what all the others told."""


@dataclass(frozen=True)
class Constants:
    """`factor`: how much longer a freeze takes there than `freeze_cost` says.

    `fixed_ms`: time outside of the freeze that does not depend on bytes.
    """

    factor: float = ASSUMED_FACTOR
    fixed_ms: float = ASSUMED_FIXED_MS
    learned: bool = False


def recall(inventory: Inventory, source: str, destination: str) -> Constants:
    """What the migrations from one host to the other told, or what is assumed before the first."""
    with suppress(*UNREADABLE, TypeError, KeyError):
        return Constants(**json.loads(read_bounded(_file(inventory), SIZE_LIMIT))[f"{source} {destination}"])
    return Constants()


def learn(inventory: Inventory, source: str, destination: str, factor: float, fixed_ms: float) -> None:
    """Remember what this migration told."""
    before = recall(inventory, source, destination)
    factor, fixed_ms = min(MOST, max(LEAST, factor)), max(0.0, fixed_ms)
    if before.learned:
        factor = before.factor ** (1 - NEW) * factor**NEW
        fixed_ms = (1 - NEW) * before.fixed_ms + NEW * fixed_ms
    path = _file(inventory)
    private_folder(path.parent)
    known = {}
    with suppress(*UNREADABLE):
        known = dict(json.loads(read_bounded(path, SIZE_LIMIT)))
    known[f"{source} {destination}"] = asdict(Constants(factor, fixed_ms, learned=True))
    write_private(path, json.dumps(known, indent=1).encode())


def _file(inventory: Inventory) -> Path:
    return inventory.state_folder / "history" / "constants.json"
