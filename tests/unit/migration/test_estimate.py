"""Predictions: what follows from memory, dirty rate, link and limits."""

from __future__ import annotations

import pytest

from sealift.migration.estimate import ROUND_MS, Conditions, Dirtying, predict
from sealift.model import Strategy
from sealift_agent.memory import dirty

MB = 10**6


def given(
    memory: int = 100 * MB,
    points: tuple[tuple[float, float], ...] = ((0.2, 1 * MB), (0.6, 3 * MB)),
    *,
    lazy: bool = True,
    live: float = 100 * MB,
    files: int = 0,
) -> Conditions:
    dirtying = Dirtying(memory, points)
    return Conditions(dirtying, files, 100 * MB, live, floor_ms=200, fixed_ms=1000, lazy=lazy, max_rounds=5)


def test_dirty_memory_grows_by_the_slope_of_the_sample_up_to_all_of_it() -> None:
    writer = Dirtying(100 * MB, [(0.2, 2 * MB), (0.6, 6 * MB)])
    assert writer.after(0) == 0
    assert writer.after(0.1) == pytest.approx(1 * MB)
    assert writer.after(1.0) == pytest.approx(10 * MB)
    assert writer.after(60) == 100 * MB


def test_a_small_working_set_stays_small() -> None:
    settled = Dirtying(100 * MB, [(0.2, 5 * MB), (0.6, 5 * MB)])
    assert settled.after(30) == 5 * MB
    assert settled.bytes_s == 5 * MB


def test_what_was_not_sampled_is_not_known() -> None:
    assert Dirtying(100 * MB).bytes_s is None


def test_stop_and_copy_freezes_for_all_of_the_memory() -> None:
    assert predict(Strategy.STOP_AND_COPY, given()).freeze_ms == pytest.approx(200 + 1000)


def test_without_lazy_restore_the_memory_is_read_back_in_the_freeze() -> None:
    slower = predict(Strategy.STOP_AND_COPY, given(lazy=False)).freeze_ms
    assert slower == pytest.approx(200 + 1000 + 100)


def test_post_copy_freezes_for_none_of_it_and_fetches_it_after() -> None:
    found = predict(Strategy.POST_COPY, given())
    assert found.freeze_ms == 200
    assert found.total_ms == pytest.approx(1000 + 200 + 1000)


def test_pre_copy_leaves_what_the_last_round_left_dirty() -> None:
    # 5 MB/s on 100 MB/s: round 1 leaves 6.5 MB, round 2 about 1.8, round 3 about 1.6, which no longer pays.
    found = predict(Strategy.PRE_COPY, given())
    assert 200 + 10 < found.freeze_ms < 200 + 25
    assert found.total_ms > 1000 + 1000 + 2 * ROUND_MS


def test_a_writer_faster_than_the_link_gains_nothing_by_rounds() -> None:
    wild = given(points=((0.2, 40 * MB), (0.6, 100 * MB)))
    assert predict(Strategy.PRE_COPY, wild).freeze_ms == predict(Strategy.STOP_AND_COPY, wild).freeze_ms


def test_a_limited_bandwidth_makes_rounds_longer_and_what_they_leave_larger() -> None:
    free, limited = given(), given(live=20 * MB)
    assert predict(Strategy.PRE_COPY, limited).freeze_ms > predict(Strategy.PRE_COPY, free).freeze_ms
    assert (
        predict(Strategy.STOP_AND_COPY, limited).freeze_ms == predict(Strategy.STOP_AND_COPY, free).freeze_ms
    )


def test_files_go_ahead_and_cost_no_freeze() -> None:
    with_files, without = given(files=50 * MB), given()
    for strategy in (Strategy.STOP_AND_COPY, Strategy.POST_COPY):
        assert predict(strategy, with_files).freeze_ms == predict(strategy, without).freeze_ms
        assert predict(strategy, with_files).total_ms == pytest.approx(
            predict(strategy, without).total_ms + 500
        )


def entry(*, soft_dirty: bool, present: bool = False, swapped: bool = False) -> bytes:
    """One entry of /proc/PID/pagemap (kernel: admin-guide/mm/pagemap)."""
    return (soft_dirty << 55 | present << 63 | swapped << 62 | 0x1234).to_bytes(8, "little")


def test_dirty_pages_are_counted_where_there_is_a_page() -> None:
    table = b"".join(
        [
            entry(soft_dirty=True, present=True),
            entry(soft_dirty=True, swapped=True),
            entry(soft_dirty=True),
            entry(soft_dirty=False, present=True),
        ]
    )
    assert dirty._count(table * 1000) == 2000
    assert dirty._count(b"") == 0
