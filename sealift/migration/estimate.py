"""How long it will take and how long nothing will run, by strategy: from what was sampled, before anything is touched.

Bytes over rates, plus two constants that only a migration between these two hosts can tell: what a freeze takes that
moves next to nothing (`floor_ms`), and what all the rest takes besides moving bytes (`fixed_ms`). Until there was one
they are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.migration.predump import PAYS, SMALL_BYTES
from sealift.model import Prediction, Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUND_MS = 300
"""A round's own time, whatever it sends: runc, CRIU and a page server are started."""

READ_BYTES_S = 1e9
"""How fast images are read back into memory where that is not left for later."""


@dataclass(frozen=True)
class Dirtying:
    """How memory gets dirty: distinct dirty bytes after so many seconds, as sampled, up to all of it."""

    memory_bytes: int
    points: Sequence[tuple[float, float]] = ()

    def after(self, seconds: float) -> float:
        """Distinct dirty bytes that long after all was clean; beyond the sample, by the slope of its last part."""
        (before_s, before), (last_s, last) = [(0.0, 0.0), *self.points][-2:]
        if seconds <= before_s:
            return before * seconds / before_s if before_s else 0.0
        return min(self.memory_bytes, before + (last - before) * (seconds - before_s) / (last_s - before_s))

    @property
    def bytes_s(self) -> float | None:
        """Distinct dirty bytes in the first second; None if it could not be sampled."""
        return self.after(1.0) if self.points else None


@dataclass(frozen=True)
class Conditions:
    """What a prediction is made of. Rates in bytes a second: `link` carries what the freeze sends, `live` the rest."""

    dirtying: Dirtying
    file_bytes: int
    link: float
    live: float
    floor_ms: float
    fixed_ms: float
    lazy: bool
    max_rounds: int

    @property
    def memory_bytes(self) -> int:
        """What a dump takes."""
        return self.dirtying.memory_bytes


def predict(strategy: Strategy, given: Conditions) -> Prediction:
    """Freeze and total time of one strategy, in milliseconds. The total counts from the preflight's end."""
    files_ms = 1000 * given.file_bytes / given.live
    if strategy is Strategy.POST_COPY:
        rounds_ms, left, later_ms = 0.0, 0.0, 1000 * given.memory_bytes / given.link
    elif strategy is Strategy.PRE_COPY:
        rounds_ms, left = _rounds(given)
        later_ms = 0.0
    else:
        rounds_ms, left, later_ms = 0.0, float(given.memory_bytes), 0.0
    freeze_ms = given.floor_ms + 1000 * left / given.link
    if not given.lazy and strategy is not Strategy.POST_COPY:
        freeze_ms += 1000 * given.memory_bytes / READ_BYTES_S
    return Prediction(
        strategy=strategy,
        freeze_ms=freeze_ms,
        total_ms=given.fixed_ms + files_ms + rounds_ms + freeze_ms + later_ms,
    )


def _rounds(given: Conditions) -> tuple[float, float]:
    """What the rounds take, in milliseconds, and what they leave for the freeze, in bytes."""
    took_ms, sent, left = 0.0, 0.0, float(given.memory_bytes)
    for number in range(given.max_rounds):
        if number and (left <= SMALL_BYTES or left > PAYS * sent):
            break
        round_ms = ROUND_MS + 1000 * left / given.live
        sent, left = left, given.dirtying.after(round_ms / 1000)
        took_ms += round_ms
    return took_ms, left
