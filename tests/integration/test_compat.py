"""A row of the compatibility table, made as all are: an image with maintainer scripts, a client, three moves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from benchmarks.compat import matrix
from benchmarks.compat.row import MOVED
from sealift.lab import lab

if TYPE_CHECKING:
    from pathlib import Path

    from hosts import Hosts


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.timeout(900)
def test_a_stock_program_moves_there_back_and_there(hosts: Hosts, tmp_path: Path) -> None:
    docker = os.environ.get(lab.DOCKER_VARIABLE, lab.DOCKER)
    results = tmp_path / "rows.json"
    (row,) = matrix.keep(
        matrix.chosen(["beanstalkd"]), [docker], strategies=["auto"], found={}, results=results, say=print
    )
    assert matrix.wrong(row) == "", row
    assert (row.outcome, row.check, row.moves) == (MOVED, "yes", 3)
    assert len(row.predicted_ms) == len(row.frozen_ms) == 3
    assert row.longest_gap_ms >= max(row.frozen_ms) / 2
    assert row.operations > 50
    assert matrix.stored(results) == {row.key: row}
    assert not hosts.docker("source", "ps", "-aq")
    assert not hosts.docker("destination", "ps", "-aq")
