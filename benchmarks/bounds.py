"""What the engine is held to: shares and ratios of medians, all from the rows of one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchmarks import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

MB = 1_000_000
HEADS = ("lab", "what", "measured", "bound", "holds", "of rows")


@dataclass(frozen=True)
class Bound:
    """One bound. `rows` is the smallest number of rows that a median in it is of."""

    lab: str
    what: str
    measured: float
    limit: float
    rows: int
    way: Literal["at most", "at least"] = "at most"

    @property
    def holds(self) -> bool:
        """Whether what was measured is within it."""
        return self.measured <= self.limit if self.way == "at most" else self.measured >= self.limit

    def facts(self) -> dict[str, Any]:
        """All of it, for a program."""
        return asdict(self) | {"holds": self.holds}


USUAL = {name: compare.USUAL[name] for name in ("small_files", "volume_bytes", "driver")}
"""What rows that were stored before these columns were thought of have in them."""


class _Rows:
    """The rows of one lab that ended well, and how many of them the last question was answered from."""

    def __init__(self, rows: pd.DataFrame) -> None:
        own = rows["system"] == "sealift"
        usual = rows[list(USUAL)].fillna(USUAL)
        self._rows = rows.assign(way=rows["strategy"].where(own, rows["system"]), **usual)
        self.used = 0

    def of(self, way: str, **facts: float | str) -> pd.DataFrame:
        """Those of one strategy of Sealift's, or of a peer, with these facts. KeyError if there is none.

        What is not said of USUAL is as usual.
        """
        found = self._rows[self._rows["way"] == way]
        for name, value in (USUAL | facts).items():
            found = found[found[name] == value]
        if found.empty:
            raise KeyError(way)
        self.used = min(self.used or len(found), len(found))
        return found

    def median(self, column: str, way: str, **facts: float | str) -> float:
        """The median of one column of them. KeyError if there is none."""
        values = self.of(way, **facts)[column].dropna().astype(float)
        if values.empty:
            raise KeyError(column)
        return float(values.median())

    def gap(self, way: str, memory_mb: float = 100, quantile: float = 0.5) -> float:
        """The client's gap with an otherwise idle Redis, in milliseconds: the median, or another quantile."""
        found = self.of(way, workload="redis", memory_bytes=memory_mb * MB, dirty_mb_s=0)
        return float(found["client_gap_ms"].quantile(quantile))


def bounds(rows: pd.DataFrame) -> list[Bound]:
    """Every bound that these rows have what it takes for."""
    ended = rows[(rows["outcome"] == "committed") & (rows["path"] == "tunnel") & (rows["at_once"] == 1)]
    return [bound for lab in ("netns", "vm") for bound in _of_lab(lab, ended[ended["lab"] == lab])]


def _of_lab(lab: str, rows: pd.DataFrame) -> Iterator[Bound]:
    for what, way, limit, measure in HELD_TO[lab]:
        seen = _Rows(rows)
        try:
            measured = measure(seen)
        except KeyError:
            continue
        yield Bound(lab, what, measured, limit, seen.used, way)


def _stop_and_copy(rows: _Rows) -> float:
    """Against what it is made of: CRIU's own dump and restore in place, and the pages at the tunnel's rate."""
    way = "stop-and-copy"
    at: dict[str, Any] = {"workload": "redis", "memory_bytes": 100 * MB}
    moving = rows.median("last_bytes", way, **at) / (rows.median("tunnel_mb_s", "floor", **at) * MB) * 1000
    parts = (
        rows.median("criu_dump_ms", "floor", **at) + moving + rows.median("criu_restore_ms", "floor", **at)
    )
    return rows.gap(way) / parts


def _pages(rows: _Rows) -> float:
    """Pages by the whole time of the final dump, which has more to do than to send them: of 1 GB it is little."""
    way = "stop-and-copy"
    at: dict[str, Any] = {"workload": "redis", "memory_bytes": 1000 * MB}
    rate = rows.median("last_bytes", way, **at) / MB / (rows.median("final_dump_ms", way, **at) / 1000)
    return rate / rows.median("tunnel_mb_s", "floor", workload="redis")


def _writer(rows: _Rows) -> float:
    """The freeze of a writer at 40 % of the link's rate, beyond CRIU's own in place, by what its last pages take."""
    found = rows.of("pre-copy", workload="memory")
    share = found["dirty_mb_s"] * 8 / found["link_mbit_s"]
    found = found[(share > 0.35) & (share < 0.45)]
    if found.empty:
        raise KeyError("link_mbit_s")
    floor = rows.median("criu_dump_ms", "floor") + rows.median("criu_restore_ms", "floor")
    last_ms = found["last_bytes"].astype(float) / MB * 8 / found["link_mbit_s"] * 1000
    return float(((found["frozen_ms"] - floor) / last_ms).median())


def _more(rows: _Rows, **unusual: float | str) -> float:
    """How much longer an idle Redis of 20 MB is frozen where something is not as usual, in milliseconds."""
    way = "stop-and-copy"
    at: dict[str, Any] = {"workload": "redis", "memory_bytes": 20 * MB, "dirty_mb_s": 0}
    return rows.median("frozen_ms", way, **at, **unusual) - rows.median("frozen_ms", way, **at)


HELD_TO: dict[str, list[tuple[str, Literal["at most", "at least"], float, Callable[[_Rows], float]]]] = {
    "netns": [
        ("post-copy, client's gap, ms", "at most", 250, lambda rows: rows.gap("post-copy")),
        (
            "post-copy, client's gap, 95th percentile, ms",
            "at most",
            500,
            lambda rows: rows.gap("post-copy", quantile=0.95),
        ),
        (
            "post-copy, share of Docker's gap",
            "at most",
            1 / 20,
            lambda rows: rows.gap("post-copy") / rows.gap("docker"),
        ),
        (
            "post-copy, 1 GB against 100 MB",
            "at most",
            1.3,
            lambda rows: rows.gap("post-copy", 1000) / rows.gap("post-copy"),
        ),
        ("stop-and-copy, against CRIU's dump, the tunnel, CRIU's restore", "at most", 1.25, _stop_and_copy),
        ("pages of 1 GB, share of iperf3's rate", "at least", 0.9, _pages),
        ("freeze for 20,000 small files, ms", "at most", 50, lambda rows: _more(rows, small_files=20_000)),
        (
            "freeze for 2 GB of volume, ms",
            "at most",
            50,
            lambda rows: _more(rows, volume_bytes=2000 * MB),
        ),
        ("freeze for the flow, ms", "at most", 5, lambda rows: -_more(rows, driver="engine")),
    ],
    "vm": [
        (
            "pre-copy, share of Docker's gap",
            "at most",
            1 / 8,
            lambda rows: rows.gap("pre-copy") / rows.gap("docker"),
        ),
        (
            "pre-copy, 512 MB against 64 MB",
            "at most",
            1.3,
            lambda rows: rows.gap("pre-copy", 512) / rows.gap("pre-copy", 64),
        ),
        ("pre-copy, freeze of a writer at 40 % of the link, by its last pages", "at most", 2, _writer),
    ],
}
"""By the kind of lab: what, which way, how much, and how it comes out of rows."""


def table(found: list[Bound]) -> list[tuple[str, ...]]:
    """A line each, in the order of HEADS."""
    return [
        (
            bound.lab,
            bound.what,
            f"{bound.measured:.3g}",
            f"{bound.way} {bound.limit:.3g}",
            "yes" if bound.holds else "no",
            str(bound.rows),
        )
        for bound in found
    ]
