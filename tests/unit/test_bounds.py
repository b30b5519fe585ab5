"""Bounds: told from the rows that they need, of the right lab, and not from others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import bounds, frames

if TYPE_CHECKING:
    from benchmarks.bounds import Bound

pytestmark = pytest.mark.alone

MB = 1_000_000


def row(number: int = 0, **other: Any) -> dict[str, Any]:
    usual = {
        "system": "sealift",
        "strategy": "stop-and-copy",
        "workload": "redis",
        "memory_bytes": 100 * MB,
        "dirty_mb_s": 0.0,
        "at_once": 1,
        "path": "tunnel",
        "lab": "netns",
        "outcome": "committed",
        "client_gap_ms": 100.0,
        "last_bytes": 100 * MB,
        "final_dump_ms": 500.0,
        "row": f"row-{number}",
    }
    return usual | other


FLOOR = {"system": "floor", "strategy": "in place", "criu_dump_ms": 100.0, "criu_restore_ms": 50.0}


def found(*rows: dict[str, Any]) -> dict[str, Bound]:
    return {bound.what.partition(",")[0]: bound for bound in bounds.bounds(frames.frame(rows))}


def test_a_gap_and_its_share_of_dockers() -> None:
    rows = [row(n, strategy="post-copy", client_gap_ms=200.0 + n) for n in range(5)]
    told = bounds.bounds(frames.frame([*rows, row(system="docker", strategy="docker", client_gap_ms=5050.0)]))
    by_name = {bound.what: bound for bound in told}
    gap = by_name["post-copy, client's gap, ms"]
    assert (gap.measured, gap.rows, gap.holds) == (202.0, 5, True)
    share = by_name["post-copy, share of Docker's gap"]
    assert share.measured == pytest.approx(202 / 5050)
    assert (share.rows, share.holds) == (1, True)


def test_the_worst_count_too() -> None:
    rows = [row(n, strategy="post-copy", client_gap_ms=gap) for n, gap in enumerate([200.0] * 9 + [900.0])]
    by_name = {bound.what: bound for bound in bounds.bounds(frames.frame(rows))}
    assert not by_name["post-copy, client's gap, 95th percentile, ms"].holds


def test_stop_and_copy_is_held_against_its_parts() -> None:
    # 100 ms + 100 MB at 400 MB/s + 50 ms = 400 ms
    told = found(row(client_gap_ms=480.0), row(**FLOOR, tunnel_mb_s=400.0))["stop-and-copy"]
    assert told.measured == pytest.approx(480 / 400)
    assert told.holds
    assert not found(row(client_gap_ms=520.0), row(**FLOOR, tunnel_mb_s=400.0))["stop-and-copy"].holds


def test_pages_are_held_against_the_tunnel() -> None:
    gigabyte = row(memory_bytes=1000 * MB, last_bytes=1000 * MB, final_dump_ms=2500.0)
    assert found(gigabyte, row(**FLOOR, tunnel_mb_s=440.0))["pages of 1 GB"].holds
    told = found(gigabyte, row(**FLOOR, tunnel_mb_s=500.0))["pages of 1 GB"]
    assert told.measured == pytest.approx(0.8)
    assert not told.holds


def test_a_writer_is_allowed_its_last_pages_twice() -> None:
    writer = row(
        lab="vm",
        strategy="pre-copy",
        workload="memory",
        dirty_mb_s=5.0,
        link_mbit_s=100.0,
        last_bytes=10 * MB,  # 800 ms
        frozen_ms=1650.0,
    )
    floor = row(**FLOOR, lab="vm")
    told = found(writer, floor)["pre-copy"]
    assert told.measured == pytest.approx((1650 - 150) / 800)
    assert told.holds
    assert not found(writer | {"frozen_ms": 1800.0}, floor)["pre-copy"].holds


@pytest.mark.parametrize(
    "other",
    [
        {"outcome": "failed"},
        {"path": "plain"},
        {"at_once": 2},
        {"lab": "vm"},
        {"dirty_mb_s": 5.0},
        {"workload": "memory"},
        {"memory_bytes": 20 * MB},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_rows_tell_nothing(other: dict[str, Any]) -> None:
    assert not bounds.bounds(frames.frame([row(strategy="post-copy", **other)]))


def test_what_files_and_the_flow_cost_in_the_freeze_is_told_from_medians() -> None:
    usual = [row(n, memory_bytes=20 * MB, frozen_ms=200.0 + n) for n in range(3)]
    told = found(
        *usual,
        row(memory_bytes=20 * MB, frozen_ms=231.0, small_files=20_000),
        row(memory_bytes=20 * MB, frozen_ms=261.0, volume_bytes=2000 * MB),
        row(memory_bytes=20 * MB, frozen_ms=197.0, driver="engine"),
    )
    files, volume, flow = (told[f"freeze for {what}"] for what in ("20", "2 GB of volume", "the flow"))
    assert (files.measured, files.holds) == (30.0, True)
    assert (volume.measured, volume.holds) == (60.0, False)
    assert (flow.measured, flow.holds, flow.rows) == (4.0, True, 1)


def test_what_was_measured_with_files_is_no_row_of_another_bound() -> None:
    gap = {"strategy": "post-copy", "client_gap_ms": 200.0}
    told = found(row(**gap), row(1, **{**gap, "client_gap_ms": 900.0}, small_files=20_000))
    assert told["post-copy"].rows == 1
