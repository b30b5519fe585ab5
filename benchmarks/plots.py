"""Pictures of results: for screens, for print in grey, and for eyes that tell few colours apart.

Every function takes a frame of rows (`benchmarks.frames`) and returns a matplotlib Figure, or None where the rows hold
nothing to draw.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.frames import ways

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from benchmarks.workloads.client import Responses
    from sealift.model import Report

COLOURS = {
    "sealift": "#0072B2",
    "sealift, post-copy": "#56B4E9",
    "docker": "#D55E00",
    "runc-script": "#009E73",
    "podman": "#CC79A7",
    "whole-vm": "#E69F00",
    "floor": "#000000",
}
"""Of Okabe and Ito's palette (Color Universal Design, 2008), which colour-blind eyes tell apart."""

MARKERS = {"sealift": "o", "sealift, post-copy": "v", "docker": "s", "runc-script": "^", "podman": "D"}
MARKERS |= {"whole-vm": "P", "floor": "x"}
STEP_COLOURS = {
    "preflight": "#F0F0F0",
    "sync": "#D9E8F2",
    "pre-dump": "#BFD9EA",
    "final dump": "#E69F00",
    "transfer": "#F0E442",
    "restore": "#56B4E9",
    "network switch": "#CC79A7",
    "finish": "#F0F0F0",
}
FREEZE = {
    "final_dump_ms": ("dump", "#E69F00", ""),
    "transfer_ms": ("transfer", "#F0E442", "///"),
    "restore_ms": ("restore", "#56B4E9", "..."),
    "network_switch_ms": ("network switch", "#CC79A7", "xxx"),
}
"""Columns of what lies between the freeze and the client's next answer: name, colour, and a pattern for print."""

PATHS = {"plain": ("#56B4E9", "not encrypted", ""), "tunnel": ("#0072B2", "WireGuard", "///")}

SIZE = (8.0, 4.0)
DOTS_PER_INCH = 110


def png(figure: Figure) -> bytes:
    """The picture as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def timeline(responses: Responses, report: Report) -> Figure:
    """Every response time of a client, over the steps of the migration."""
    figure, axes = _canvas()
    zero = report.steps[0].started.timestamp()
    at = responses.at_s + (responses.began_unix - zero)
    ends = []
    for record in report.steps:
        left = record.started.timestamp() - zero
        right = left + record.duration_ms / 1000
        ends.append(right)
        axes.axvspan(
            left, right, color=STEP_COLOURS.get(record.step.value, "#F0F0F0"), label=record.step.value, lw=0
        )
    axes.plot(at, responses.took_ms, ",", color="#000000")
    # A dot of its own for what is rare: among ten thousand pixels nobody sees the one that matters.
    rare = responses.took_ms > 20 * max(float(np.median(responses.took_ms)), 0.1)
    axes.plot(at[rare], responses.took_ms[rare], "o", color="#D55E00", markersize=4)
    axes.set_yscale("log")
    axes.set_xlim(float(at.min()) if len(at) else 0, max(float(at.max()) if len(at) else 0, *ends))
    axes.set_xlabel("seconds since the first step")
    axes.set_ylabel("response time in ms")
    axes.set_title(
        f"{report.container}: {report.strategy.value}, frozen {report.frozen_ms:.0f} ms, evidence "
        f"{report.evidence.value}, lab {report.lab or 'none'}",
        fontsize=10,
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False)
    return figure


def gap_by_memory(rows: pd.DataFrame) -> Figure | None:
    """The client's longest gap against the size of Redis' data, for every system."""
    chosen = _plain_redis(rows)
    chosen = chosen[chosen["at_once"] == 1].assign(x=chosen["memory_bytes"] / 1e6)
    return _by_system(chosen, "memory in MB", "client's longest gap in ms")


def gap_by_dirty_rate(rows: pd.DataFrame) -> Figure | None:
    """The client's longest gap against the rate at which memory changes, for every system."""
    chosen = _committed(rows)
    chosen = chosen[(chosen["workload"] == "memory") & (chosen["path"] == "tunnel")]
    return _by_system(chosen.assign(x=chosen["dirty_mb_s"]), "dirty MB/s", "client's longest gap in ms")


def freeze_breakdown(rows: pd.DataFrame) -> Figure | None:
    """What the client waits for, part by part, with as much memory as most rows have."""
    chosen = _plain_redis(rows)
    chosen = chosen[chosen["at_once"] == 1]
    if chosen.empty:
        return None
    size = chosen["memory_bytes"].mode().iloc[0]
    chosen = chosen[chosen["memory_bytes"] == size]
    medians = (
        chosen.assign(way=ways(chosen))
        .groupby("way")[[*FREEZE, "client_gap_ms"]]
        .median()
        .sort_values("client_gap_ms")
    )
    figure, axes = _canvas()
    left = [0.0] * len(medians)
    for column, (label, colour, pattern) in FREEZE.items():
        parts = [float(value) if value == value else 0.0 for value in medians[column].astype(float)]  # noqa: PLR0124
        axes.barh(
            medians.index,
            parts,
            left=left,
            label=label,
            color=colour,
            hatch=pattern,
            edgecolor="black",
            lw=0.5,
        )
        left = [done + part for done, part in zip(left, parts, strict=True)]
    gaps = medians["client_gap_ms"].astype(float)
    axes.plot(gaps, medians.index, "|", color="black", markersize=22, label="client's longest gap")
    for place, gap in enumerate(gaps):
        axes.text(max(gap, left[place]), place, f"  {gap:.0f} ms", va="center")
    axes.set_xlabel(f"ms, median of repeats, {size / 1e6:g} MB in Redis")
    axes.margins(x=0.12)
    axes.legend(fontsize=8, frameon=False)
    return figure


def overhead(rows: pd.DataFrame) -> Figure | None:
    """The same migration through the tunnel and beside it: what the cipher costs."""
    chosen = _committed(rows)
    chosen = chosen[(ways(chosen) == "sealift") & (chosen["at_once"] == 1)]
    keys = ["workload", "memory_bytes", "dirty_mb_s"]
    sides = [chosen.loc[chosen["path"] == path, keys].drop_duplicates() for path in PATHS]
    chosen = chosen.merge(sides[0], on=keys).merge(sides[1], on=keys)
    if chosen.empty:
        return None
    metrics = {"client_gap_ms": "client's longest gap", "frozen_ms": "frozen", "total_ms": "all in all"}
    medians = chosen.groupby("path")[list(metrics)].median().astype(float)
    figure, axes = _canvas()
    for offset, (path, (colour, label, pattern)) in zip((-0.2, 0.2), PATHS.items(), strict=True):
        places = [number + offset for number in range(len(metrics))]
        values = [float(medians[metric][path]) for metric in metrics]
        axes.barh(
            places, values, height=0.38, color=colour, label=label, hatch=pattern, edgecolor="black", lw=0.5
        )
        for place, value in zip(places, values, strict=True):
            axes.text(value, place, f"  {value:.0f} ms", va="center", fontsize=9)
    axes.set_yticks(range(len(metrics)), list(metrics.values()))
    axes.set_xlabel("ms, median of repeats")
    axes.margins(x=0.12)
    axes.legend(fontsize=8, frameon=False)
    return figure


def scaling(rows: pd.DataFrame) -> Figure | None:
    """The worst client's longest gap against the number of migrations at the same time."""
    chosen = _committed(rows)
    chosen = chosen[(ways(chosen) == "sealift") & (chosen["path"] == "tunnel")]
    several = chosen.loc[chosen["at_once"] > 1, ["workload", "memory_bytes"]].drop_duplicates()
    chosen = chosen.merge(several, on=["workload", "memory_bytes"])
    return _by_system(
        chosen.assign(x=chosen["at_once"]), "migrations at once", "worst client's longest gap in ms"
    )


PICTURES: Mapping[str, tuple[str, Callable[[pd.DataFrame], Figure | None]]] = {
    "gap-by-memory": ("Client's longest gap by memory", gap_by_memory),
    "gap-by-dirty-rate": ("Client's longest gap by dirty rate", gap_by_dirty_rate),
    "freeze-breakdown": ("What the client waits for", freeze_breakdown),
    "overhead": ("What encryption of the way costs", overhead),
    "scaling": ("Several at once", scaling),
}
"""All pictures that need nothing but rows: name, title, function."""


def pictures(rows: pd.DataFrame) -> dict[str, tuple[str, Figure]]:
    """Those that the rows have something for: name to title and figure."""
    drawn = {name: (title, draw(rows)) for name, (title, draw) in PICTURES.items()}
    return {name: (title, figure) for name, (title, figure) in drawn.items() if figure is not None}


def _canvas() -> tuple[Figure, Axes]:
    # Not pyplot: it keeps figures in a global state and may look for a display.
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _committed(rows: pd.DataFrame) -> pd.DataFrame:
    unshaped = rows["link_mbit_s"].isna() & rows["latency_ms"].isna()
    alone = (rows[["small_files", "volume_bytes"]].fillna(0) == 0).all(axis=1)
    return rows[(rows["outcome"] == "committed") & unshaped & alone]


def _plain_redis(rows: pd.DataFrame) -> pd.DataFrame:
    chosen = _committed(rows)
    return chosen[(chosen["workload"] == "redis") & (chosen["path"] == "tunnel")]


def _by_system(rows: pd.DataFrame, x: str, y: str) -> Figure | None:
    """Medians as lines, every repeat as a mark, a system (and what it was asked for) a colour and a shape."""
    if rows.empty:
        return None
    figure, axes = _canvas()
    names = ways(rows)
    for system in _order(names.unique().tolist()):
        own = rows[names == system]
        medians = own.groupby("x")["client_gap_ms"].median().astype(float)
        colour, marker = COLOURS.get(system, "#999999"), MARKERS.get(system, "o")
        axes.plot(
            own["x"].astype(float), own["client_gap_ms"].astype(float), marker, color=colour, alpha=0.4, ms=4
        )
        axes.plot(medians.index.astype(float), medians, "-", color=colour, marker=marker, label=system)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, frameon=False)
    return figure


def _order(systems: Sequence[str]) -> list[str]:
    known = list(COLOURS)
    return sorted(systems, key=lambda name: known.index(name) if name in known else len(known))
