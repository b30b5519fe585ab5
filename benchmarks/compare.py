"""Two result sets held against each other: the change of each median, and how sure one can be of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME = [
    *("system", "workload", "asked_strategy", "memory_bytes", "dirty_mb_s", "locality", "link_mbit_s"),
    *(
        "latency_ms",
        "at_once",
        "path",
        "small_files",
        "volume_bytes",
        "driver",
        "lab",
        "accelerator",
        "evidence",
    ),
]
"""Rows that have all of these in common are repeats of one point."""

USUAL: dict[str, float | str] = {
    "asked_strategy": "auto",
    "dirty_mb_s": 0,
    "locality": 1,
    "at_once": 1,
    "path": "tunnel",
    "small_files": 0,
    "volume_bytes": 0,
    "driver": "flow",
}
"""Not worth a word in a point's title."""

METRICS = ("client_gap_ms", "frozen_ms", "total_ms")
LEAST = 3
"""Repeats on either side, below which a median says nothing."""

RESAMPLES = 4000
CONFIDENCE = 0.95
TOLERANCE = 0.05
"""Changes within this part of the median are nobody's business, however sure they are."""


@dataclass(frozen=True)
class Change:
    """One metric of one point, before and after. `low` and `high` bound the relative change, with 95 % confidence."""

    point: str
    metric: str
    before: float
    after: float
    change: float
    low: float
    high: float
    repeats: tuple[int, int]

    @property
    def worse(self) -> bool:
        """A regression beyond the noise: all of the interval lies above what is tolerated."""
        return self.low > TOLERANCE

    @property
    def better(self) -> bool:
        """The same the other way."""
        return self.high < -TOLERANCE

    def __str__(self) -> str:
        return (
            f"{self.point}: {self.metric} {self.before:.0f} → {self.after:.0f} ms "
            f"({self.change:+.0%}, {self.low:+.0%} to {self.high:+.0%})"
        )


def changes(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 1) -> list[Change]:
    """Every metric of every point that both have. UnusableInput where they have none with enough repeats in common."""
    old, new = _by_point(before), _by_point(after)
    random = np.random.default_rng(seed)
    found = []
    for point in sorted(old.keys() & new.keys()):
        for metric in METRICS:
            first, second = (side[point][metric].dropna().to_numpy(dtype=float) for side in (old, new))
            if min(len(first), len(second)) >= LEAST:
                found.append(_change(point, metric, first, second, random))
    if not found:
        raise UnusableInput(
            f"the two have no point in common that was measured {LEAST} times in both",
            remedy="Compare results of the same sweep and the same kind of lab",
        )
    return found


def _by_point(rows: pd.DataFrame) -> dict[str, Any]:
    committed = rows[rows["outcome"] == "committed"]
    groups = committed.groupby(SAME, dropna=False)
    return {_title(dict(zip(SAME, key, strict=True))): group for key, group in groups}


def _title(point: dict[str, Any]) -> str:
    size = f"{point['memory_bytes'] / 1e6:g} MB"
    rest = [
        f"{name} {value:g}" if isinstance(value, float | int) else f"{name} {value}"
        for name, value in point.items()
        if name not in {"system", "workload", "memory_bytes"}
        and not pd.isna(value)
        and USUAL.get(name) != value
    ]
    return ", ".join([str(point["system"]), str(point["workload"]), size, *rest])


def _change(
    point: str,
    metric: str,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    random: np.random.Generator,
) -> Change:
    """Bootstrap of the ratio of medians: both sides drawn again, with replacement, from what was measured."""
    olds = np.median(random.choice(before, (RESAMPLES, len(before))), axis=1)
    news = np.median(random.choice(after, (RESAMPLES, len(after))), axis=1)
    ratios = news / np.maximum(olds, 1e-9) - 1
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    old, new = float(np.median(before)), float(np.median(after))
    return Change(
        point,
        metric,
        old,
        new,
        new / max(old, 1e-9) - 1,
        float(low),
        float(high),
        (len(before), len(after)),
    )
