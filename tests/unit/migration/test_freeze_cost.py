"""What a freeze costs by what a container consists of: figures that were measured, and what is like them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_findings import QUIET

from sealift.migration.estimate import Dirtying
from sealift.migration.freeze_cost import BASE_MS, floor_ms

SMALL = replace(QUIET, processes=1, threads=1, opened=0, sockets=0, areas=0, tmpfs_bytes=0, unlinked={})


def test_nothing_costs_nothing() -> None:
    assert floor_ms(SMALL) == BASE_MS
    assert floor_ms(replace(SMALL, processes=0, threads=0)) == BASE_MS


@pytest.mark.parametrize(
    ("what", "measured_ms"),
    [
        ({"processes": 500, "threads": 500}, 7000),
        ({"threads": 2000}, 2000),
        ({"areas": 60_000}, 2100),
        ({"tmpfs_bytes": 10**9}, 5100),
        ({"unlinked": {"file": 900 * 10**6}}, 4200),
    ],
)
def test_each_kind_is_near_what_was_measured(what: dict[str, int], measured_ms: float) -> None:
    found = floor_ms(replace(SMALL, **what))  # type: ignore[arg-type]
    assert measured_ms / 1.5 < found < measured_ms * 1.5


def test_memory_that_is_freed_is_no_negative_rate() -> None:
    freed = Dirtying(100, [(0.2, 60), (0.6, 20)])
    assert freed.after(10) == 60
