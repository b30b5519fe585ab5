"""Predict the total time and the freeze of each strategy, from samples, before anything is changed.

A prediction is bytes divided by rates, plus two times: the length of a freeze that sends no pages (`floor_ms`, see
`freeze_cost`), and the time outside of the freeze that does not depend on bytes (`fixed_ms`). How long both take
between these two hosts is learned from migrations; before the first one it is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.migration.predump import PAYS, SMALL_BYTES
from sealift.model import Prediction, Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUND_MS = 300
"""Milliseconds of a round without its bytes: runc, CRIU and a page server are started."""

READ_BYTES_S = 1e9
"""The rate at which images are read back into memory, if that is not done after the restore."""


@dataclass(frozen=True)
class Dirtying:
    """How memory gets dirty: sampled distinct dirty bytes after so many seconds, at most all memory."""

    memory_bytes: int
    points: Sequence[tuple[float, float]] = ()

    def after(self, seconds: float) -> float:
        """Distinct dirty bytes that long after all was clean. After the sample, by the slope of its last part."""
        (before_s, before), (last_s, last) = [(0.0, 0.0), *self.points][-2:]
        if seconds <= before_s:
            return before * seconds / before_s if before_s else 0.0
        slope = max(0.0, last - before) / (
            last_s - before_s
        )  # what was dirty and is freed is not dirty any more
        return min(self.memory_bytes, before + slope * (seconds - before_s))

    @property
    def bytes_s(self) -> float | None:
        """Distinct dirty bytes in the first second; None if it could not be sampled."""
        return self.after(1.0) if self.points else None


@dataclass(frozen=True)
class Conditions:
    """The inputs of a prediction. Rates are in bytes a second: `link` in the freeze, `live` before it."""

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
        """The bytes of a dump."""
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
    """The duration of the rounds in milliseconds, and the bytes that they leave for the freeze."""
    took_ms, sent, left = 0.0, 0.0, float(given.memory_bytes)
    for number in range(given.max_rounds):
        if number and (left <= SMALL_BYTES or left > PAYS * sent):
            break
        round_ms = ROUND_MS + 1000 * left / given.live
        sent, left = left, given.dirtying.after(round_ms / 1000)
        took_ms += round_ms
    return took_ms, left
