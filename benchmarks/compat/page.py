"""The page of the table (`docs/compatibility.md`), and the table on a terminal."""

from __future__ import annotations

from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.compat.matrix import wrong
from benchmarks.compat.programs import PROGRAMS
from benchmarks.compat.row import MOVED, UNTRIED, Row
from sealift.plain_text import in_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HEADS = ("program", "strategy", "Docker", "result", "`check`", "predicted", "frozen", "longest gap")

TITLE = """# Stock programs that were moved

This page is made from `benchmarks/results/compat.json` by `sealift bench compat --page`; nobody writes it. Each program
is Debian's package as it is: its maintainer scripts were run, and it is started as its unit or its documentation says
(`benchmarks/compat/`). A client keeps one connection open, checks the order and the content of all answers, and
measures the longest time without one. Meanwhile the container moves there, back and there again. Before that,
`sealift check` is asked for its verdict.

The figures were measured in the `netns` lab: both hosts share one kernel and two processors, which other work used,
too. They show the order of size, and not what a network costs. `auto` is stop-and-copy there, since that kernel does
not track dirty pages; for the same reason there is no pre-copy.
"""


def markdown(found: Iterable[Row]) -> str:
    """The page."""
    rows = sorted(found, key=_order)
    parts = [TITLE, _summary(rows), _prediction(rows), *_tables(rows), _limits(rows), _open(rows)]
    return "\n".join(part for part in parts if part)


def _order(row: Row) -> tuple[str, str, str, str]:
    return row.kind.lower(), row.program, row.docker, row.strategy


def _summary(rows: Sequence[Row]) -> str:
    lines = [
        "## Result",
        "",
        "| Docker | strategy | programs | moved | `check` right |",
        "|---|---|---|---|---|",
    ]
    rows = [row for row in rows if row.outcome != UNTRIED]
    pairs = sorted({(row.docker, row.strategy) for row in rows})
    for docker, strategy in pairs:
        chosen = [row for row in rows if (row.docker, row.strategy) == (docker, strategy)]
        moved = sum(row.outcome == MOVED for row in chosen)
        right = sum(row.check_is_right for row in chosen)
        lines.append(f"| {docker} | {strategy} | {len(chosen)} | {moved} | {right} |")
    return "\n".join([*lines, ""])


def ratios(rows: Iterable[Row]) -> list[float]:
    """Actual freeze by predicted one, of each move that has a prediction."""
    return [
        frozen / predicted
        for row in rows
        for predicted, frozen in zip(row.predicted_ms, row.frozen_ms, strict=True)
        if predicted > 0
    ]


def _prediction(rows: Sequence[Row]) -> str:
    lines = [
        "## Predicted and actual freeze",
        "",
        "Over all moves, the actual freeze divided by the predicted one:",
        "",
        "| strategy | moves | median | a tenth is below | a tenth is above | predicted, median | frozen, median |",
        "|---|---|---|---|---|---|---|",
    ]
    for strategy in sorted({row.strategy for row in rows}):
        chosen = [row for row in rows if row.strategy == strategy]
        found = sorted(ratios(chosen))
        if not found:
            continue
        tenth = len(found) // 10
        predicted = median(each for row in chosen for each in row.predicted_ms if each > 0)
        frozen = median(each for row in chosen for each in row.frozen_ms)
        lines.append(
            f"| {strategy} | {len(found)} | {median(found):.2f} | {found[tenth]:.2f} | {found[-1 - tenth]:.2f} "
            f"| {predicted:.0f} ms | {frozen:.0f} ms |"
        )
    return "\n".join([*lines, ""])


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    for docker, chosen in groupby(sorted(rows, key=lambda row: row.docker), key=lambda row: row.docker):
        lines = [
            f"## With Docker {docker}" + (" (from the first to the second)" if ":" in docker else ""),
            "",
            "Times are the longest of three moves, in milliseconds.",
            "",
            "| kind | program | version | strategy | result | `check` | memory | processes | predicted | frozen | "
            "longest gap | answers |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in sorted(chosen, key=_order):
            cells = [
                row.kind,
                row.program,
                row.version,
                row.strategy,
                row.outcome,
                row.check,
                f"{row.memory_bytes / 1e6:.0f} MB",
                row.processes,
                _worst(row.predicted_ms),
                _worst(row.frozen_ms),
                f"{row.longest_gap_ms:.0f}",
                row.operations,
            ]
            lines.append(f"| {' | '.join(in_markdown(str(cell)) for cell in cells)} |")
        yield "\n".join([*lines, ""])


def _limits(rows: Sequence[Row]) -> str:
    tried = {row.program for row in rows}
    known = [program for program in PROGRAMS.values() if program.limit and program.name in tried]
    if not known:
        return ""
    lines = ["## Known not to go", "", *(f"- **{each.name}**: {each.limit}" for each in known)]
    return "\n".join([*lines, ""])


def _open(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if wrong(row)]
    lines = ["## Rows that are not as they must be", ""]
    lines += [
        f"- {row.program}, {row.strategy}, Docker {row.docker}: {in_markdown(wrong(row))}" for row in failed
    ]
    if not failed:
        lines.append("None.")
    return "\n".join([*lines, ""])


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, lines and notes for a terminal."""
    notes = [f"{row.key}: {wrong(row)}" for row in rows if wrong(row)]
    return list(HEADS), [_line(row) for row in sorted(rows, key=_order)], notes


def _line(row: Row) -> list[str]:
    figures = [_worst(row.predicted_ms), _worst(row.frozen_ms), f"{row.longest_gap_ms:.0f}"]
    timed = [f"{each} ms" if each else "" for each in figures]
    return [row.program, row.strategy, row.docker, row.outcome, row.check, *timed]


def _worst(figures: Sequence[float]) -> str:
    return f"{max(figures):.0f}" if figures else ""
