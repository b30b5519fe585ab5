"""Times of migrations between two hosts that do not depend on bytes. The owner keeps them for the next prediction."""

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
ASSUMED_FLOOR_MS, ASSUMED_FIXED_MS = 500.0, 3000.0


@dataclass(frozen=True)
class Constants:
    """`floor_ms`: a freeze that sends almost nothing.

    `fixed_ms`: time outside of the freeze that does not depend on bytes.
    """

    floor_ms: float = ASSUMED_FLOOR_MS
    fixed_ms: float = ASSUMED_FIXED_MS
    learned: bool = False


def recall(inventory: Inventory, source: str, destination: str) -> Constants:
    """The constants of the last migration from one host to the other, or assumed ones before the first."""
    with suppress(*UNREADABLE, TypeError, KeyError):
        return Constants(**json.loads(read_bounded(_file(inventory), SIZE_LIMIT))[f"{source} {destination}"])
    return Constants()


def learn(inventory: Inventory, source: str, destination: str, floor_ms: float, fixed_ms: float) -> None:
    """Remember the constants of this migration."""
    path = _file(inventory)
    private_folder(path.parent)
    known = {}
    with suppress(*UNREADABLE):
        known = dict(json.loads(read_bounded(path, SIZE_LIMIT)))
    known[f"{source} {destination}"] = asdict(Constants(max(0.0, floor_ms), max(0.0, fixed_ms), learned=True))
    write_private(path, json.dumps(known, indent=1).encode())


def _file(inventory: Inventory) -> Path:
    return inventory.state_folder / "history" / "constants.json"
