"""A sample of the fault matrix (`sealift bench faults`): whatever breaks, one live copy stays, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import kept
from benchmarks.faults import cell as trial
from benchmarks.faults import labs, matrix
from benchmarks.faults.faults import FAULTS, SAMPLE, cells
from benchmarks.faults.moments import MOMENTS
from benchmarks.faults.orchestrator import Orchestrator
from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

DEAD = sorted({cell.name for cell in cells(["everybody@*"])} - {*SAMPLE})
"""Everybody who could put a migration right is killed: `recover` does it from the gateway's record."""

ONCE = (
    "cut:source-destination@provided",
    "agent:source@finished",
    "sigterm@finish",
    "power:destination@copied",
    "cut:destination-gateway@decided",
)
"""What once did not hold."""


@pytest.fixture(scope="module")
def orchestrator() -> Iterator[Orchestrator]:
    with Orchestrator.ready() as ready:
        yield ready


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.parametrize(
    "name",
    [*SAMPLE[:3], *(pytest.param(name, marks=pytest.mark.whole) for name in (*SAMPLE[3:], *DEAD, *ONCE))],
)
def test_one_live_copy_stays_and_nothing_else(hosts: Hosts, orchestrator: Orchestrator, name: str) -> None:
    (cell,) = cells([name])
    verdict = trial.run(cell, orchestrator)
    print(verdict)
    assert verdict.ok, verdict


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.whole
def test_prefect_s_api_goes_away_for_good_and_the_migration_goes_on(
    hosts: Hosts, orchestrator: Orchestrator
) -> None:
    (cell,) = cells(["api@preflight"])
    verdict = trial.run(cell, orchestrator)
    assert verdict.ok, verdict
    assert verdict.owner == "destination"
    assert verdict.said == ("{'outcome': 'committed'}",), "the flow ended with its report all the same"


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.whole
@pytest.mark.parametrize(("moment", "owner"), [("copied", "source"), ("received", "destination")])
def test_a_run_that_is_cancelled_in_prefect_s_ui_ends_with_one_live_copy(
    hosts: Hosts, orchestrator: Orchestrator, moment: str, owner: str
) -> None:
    (cell,) = cells([f"cancel@{moment}"])
    verdict = trial.run(cell, orchestrator)
    assert verdict.ok, verdict
    assert "'run': 'Cancelled'" in verdict.said[0]
    assert verdict.owner == owner, "before the cutover nothing has happened; a cutover comes to its end"


def test_cells_are_chosen_by_patterns() -> None:
    every = {cell.name for cell in cells([])}
    assert {cell.name for cell in cells(["disk@*"])} == {f"disk@{moment.name}" for moment in MOMENTS}
    assert set(SAMPLE) <= every
    assert all(f"{fault.name}@frozen" in every for fault in FAULTS)
    assert "armed:source@sync" not in every, "nothing is armed then"
    powerless = {cell.fault.power for cell in cells(["*@frozen"], "vm")}
    assert powerless == {"source", "destination"}, "VMs lose their power, and nothing else"
    with pytest.raises(UnusableInput, match="no cell is named"):
        cells(["flood@sync"])


def test_the_table_says_what_did_not_hold() -> None:
    held = trial.Verdict("disk@sync", (), "source", (), 1.0)
    broken = trial.Verdict("disk@sent", ("the client: NOT INTACT",), "source", (), 1.0)
    heads, rows, notes = matrix.table([held, broken])
    assert heads == ["fault", "sync\nsync, start", "sent\ntransfer, middle"]
    assert rows == [["disk", "ok", "(1)"]]
    assert notes == ["1. disk@sent: the client: NOT INTACT"]


def test_a_cell_is_tried_again_unless_it_held_with_this_very_code() -> None:
    held = trial.Verdict("disk@sync", (), "source", (), 1.0, code="abc")
    broken = trial.Verdict("disk@sync", ("it is not reachable",), "source", (), 1.0, code="abc")
    assert matrix.holds(held, "abc")
    assert not matrix.holds(held, "abd")
    assert not matrix.holds(broken, "abc")
    assert not matrix.holds(None, "abc")
    changed = trial.Verdict("disk@sync", (), "source", (), 1.0, code="abc+")
    assert not matrix.holds(changed, "abc+"), "what was not committed has no name"


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.whole
def test_cells_are_tried_in_several_labs_at_once() -> None:
    chosen = cells(["controller@frozen", "controller@attest", "everybody@received"])
    labs_before = set(Path("/sys/fs/cgroup").glob("**/sealift-*-source"))
    found = {verdict.cell: verdict for verdict in labs.trials(chosen, 2, "netns")}
    assert found.keys() == {cell.name for cell in chosen}
    assert all(verdict.ok for verdict in found.values()), found
    assert set(Path("/sys/fs/cgroup").glob("**/sealift-*-source")) == labs_before, "both labs are down"


def test_verdicts_are_kept_in_a_file_that_goes_on_where_it_was(tmp_path: Path) -> None:
    held = trial.Verdict("disk@sync", (), "source", ("{'outcome': 'committed'}",), 1.0)
    broken = trial.Verdict("disk@sent", ("the client: NOT INTACT",), None, (), 1.0)
    path = tmp_path / "new" / "faults.json"
    assert matrix.stored(path) == {}
    kept.store([held, broken], path)
    assert matrix.stored(path) == {held.cell: held, broken.cell: broken}
    path.write_text('[{"cell": "disk@sync"}]')
    with pytest.raises(UnusableInput, match="is not a file of verdicts"):
        matrix.stored(path)
