"""What a migration told is remembered for the same two hosts, and nonsense on disk is as good as nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sealift.migration import history

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.inventory import Inventory


class At:
    """As much of an inventory as the history asks for."""

    def __init__(self, folder: Path) -> None:
        self.state_folder = folder


def test_it_is_assumed_at_first_and_learned_then(tmp_path: Path) -> None:
    inventory = cast("Inventory", At(tmp_path / "state"))
    assert not history.recall(inventory, "a", "b").learned
    history.learn(inventory, "a", "b", 0.8, 1500.0)
    history.learn(inventory, "b", "a", -5.0, 900.0)
    assert history.recall(inventory, "a", "b") == history.Constants(0.8, 1500.0, learned=True)
    assert history.recall(inventory, "b", "a").factor == history.LEAST
    assert not history.recall(inventory, "a", "c").learned


def test_one_migration_that_was_disturbed_does_not_undo_what_the_others_told(tmp_path: Path) -> None:
    inventory = cast("Inventory", At(tmp_path / "state"))
    for _ in range(10):
        history.learn(inventory, "a", "b", 1.0, 1000.0)
    history.learn(inventory, "a", "b", 10.0, 1000.0)
    assert 1 < history.recall(inventory, "a", "b").factor < 3
    for _ in range(10):
        history.learn(inventory, "a", "b", 10.0, 2000.0)
    assert history.recall(inventory, "a", "b").factor > 9
    assert history.recall(inventory, "a", "b").fixed_ms > 1900


def test_a_file_that_makes_no_sense_is_written_anew(tmp_path: Path) -> None:
    inventory = cast("Inventory", At(tmp_path / "state"))
    history.learn(inventory, "a", "b", 1, 2)
    for nonsense in ("{nonsense", '{"a b": {"floor_ms": 500, "fixed_ms": 1, "learned": true}}'):
        (tmp_path / "state" / "history" / "constants.json").write_text(nonsense)
        assert not history.recall(inventory, "a", "b").learned
    history.learn(inventory, "a", "b", 3, 4)
    assert history.recall(inventory, "a", "b").factor == 3
