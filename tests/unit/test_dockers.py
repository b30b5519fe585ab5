"""The comparison of two versions of Docker."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.dockers import RESULTS, Row, compared

ROOT = Path(__file__).parents[2]


def row(pair: int, docker: str, gap_ms: float | None, freeze_ms: float | None = 100) -> Row:
    return Row(pair, docker, gap_ms, freeze_ms, load=1, code="c", error=None)


def test_medians_are_of_pairs_in_which_both_were_measured() -> None:
    rows = [row(1, "26", 200), row(1, "28", 210), row(2, "28", 230), row(2, "26", 220)]
    rows += [row(3, "26", 9000), row(3, "28", None, None), row(4, "28", 1)]
    assert compared(rows) == [
        "gap_ms: Docker 26 210, Docker 28 220, 1.05 times (medians of 2 pairs)",
        "freeze_ms: Docker 26 100, Docker 28 100, 1.00 times (medians of 2 pairs)",
    ]


def test_without_a_whole_pair_nothing_is_compared() -> None:
    assert compared([row(1, "26", 200), row(1, "28", None)]) == [
        "no pair in which both migrations were measured"
    ]


def test_the_committed_rows_are_such_rows() -> None:
    rows = [Row(**fields) for fields in json.loads((ROOT / RESULTS).read_text())]
    assert {found.docker for found in rows} == {"26", "28"}
