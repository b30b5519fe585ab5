"""Rows summed up for people: a table of medians per point, the same for the terminal, the report and the README."""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchmarks.frames import ways
from sealift.plain_text import in_markdown

POINT = [
    *(
        "lab",
        "workload",
        "memory_bytes",
        "dirty_mb_s",
        "at_once",
        "path",
        "small_files",
        "volume_bytes",
        "way",
    ),
]
HEADS = (
    *("lab", "workload", "system", "strategy", "client's gap ms", "range", "of the floor", "of docker's"),
    *("frozen ms", "total s", "sent MB", "lost", "repeats"),
)


def table(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """One line a point, in the order of HEADS; within a piece of work, the fastest first."""
    floors, docker = _medians(rows, "floor"), _medians(rows, "docker")
    rows = rows.assign(way=ways(rows))
    lines: list[tuple[tuple[Any, ...], tuple[str, ...]]] = []
    for key, group in rows.groupby(POINT, dropna=False):
        point = dict(zip(POINT, key, strict=True))
        work = tuple(map(str, key[:-1]))
        ended = group[group["outcome"] == "committed"]
        title = _work(point)
        if ended.empty:
            outcome = str(group.iloc[0]["outcome"])
            cells = (str(point["lab"]), title, str(point["way"]), outcome, *[""] * 8, f"0 of {len(group)}")
            lines.append(((work, float("inf")), cells))
            continue
        gaps = ended["client_gap_ms"].astype(float)
        lines.append(
            (
                (work, gaps.median()),
                (
                    str(point["lab"]),
                    title,
                    str(point["way"]),
                    str(ended["strategy"].mode().iloc[0]),
                    f"{gaps.median():.0f}",
                    f"{gaps.min():.0f} to {gaps.max():.0f}",
                    *(_share(gaps.median(), others.get(work)) for others in (floors, docker)),
                    _number(ended["frozen_ms"], 1),
                    _number(ended["total_ms"], 1000, 1),
                    _number(ended["pages_bytes"], 1e6),
                    str(int(ended["lost"].sum() + ended["client_error"].notna().sum())),
                    f"{len(ended)} of {len(group)}",
                ),
            )
        )
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def notes(rows: pd.DataFrame) -> list[str]:
    """Why something was not measured, each reason once."""
    missing = rows[rows["outcome"] != "committed"]
    return list(
        dict.fromkeys(f"{row['system']}, {row['workload']}: {row['error']}" for _, row in missing.iterrows())
    )


def markdown(rows: pd.DataFrame) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    lines += ["| " + " | ".join(map(in_markdown, line)) + " |" for line in table(rows)]
    lines += ["", *(f"- {in_markdown(note)}" for note in notes(rows))] if notes(rows) else []
    return "\n".join(lines) + "\n"


def provenance(rows: pd.DataFrame) -> list[str]:
    """Where the rows come from, a sentence each."""
    found = []
    columns = ("machine", "kernel", "lab", "accelerator", "evidence", "versions", "revision")
    for name in columns:
        values = sorted(rows[name].dropna().unique())
        found.append(f"{name}: {'; '.join(values) or 'unknown'}")
    if len(rows):
        days = rows["started"].dropna()
        found.append(f"measured: {days.min():%Y-%m-%d %H:%M} to {days.max():%Y-%m-%d %H:%M} UTC")
        found.append(f"load average when rows began: {rows['load'].min():.1f} to {rows['load'].max():.1f}")
    return found


def _medians(rows: pd.DataFrame, system: str) -> dict[tuple[str, ...], float]:
    """The client's gap with one system, by the work."""
    own = rows[(rows["system"] == system) & (rows["outcome"] == "committed")]
    found = {}
    for key, group in own.groupby(POINT[:-1], dropna=False):
        found[tuple(map(str, key))] = float(group["client_gap_ms"].median())
    return found


def _share(gap: float, other: float | None) -> str:
    return f"{gap / other:.2g}" if other else ""


def _work(point: dict[str, Any]) -> str:
    parts = [f"{point['workload']} {point['memory_bytes'] / 1e6:g} MB"]
    if point["dirty_mb_s"]:
        parts.append(f"{point['dirty_mb_s']:g} MB/s dirty")
    if point["at_once"] > 1:
        parts.append(f"{point['at_once']} at once")
    if point["path"] == "plain":
        parts.append("not encrypted")
    for name, what in (("small_files", "{:,} small files"), ("volume_bytes", "{:,} bytes of volume")):
        if not pd.isna(point[name]) and point[name]:
            parts.append(what.format(int(point[name])))
    return ", ".join(parts)


def _number(values: pd.Series[Any], unit: float, digits: int = 0) -> str:
    known = values.dropna().astype(float)
    return "" if known.empty else f"{known.median() / unit:.{digits}f}"
