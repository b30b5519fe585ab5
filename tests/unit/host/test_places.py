"""Places at the gateway: never more than the limit, and none is lost with its holder."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

from sealift_agent.places import Places

if TYPE_CHECKING:
    from pathlib import Path


def test_no_more_enter_than_the_limit_says(tmp_path: Path) -> None:
    held = [Places(tmp_path) for _ in range(3)]
    assert [one.enter({"a": 2, "a to b": 3}) for one in held] == [[], [], ["a"]]


def test_who_finds_one_full_takes_none(tmp_path: Path) -> None:
    first, second, third = Places(tmp_path), Places(tmp_path), Places(tmp_path)
    assert first.enter({"b": 1}) == []
    assert second.enter({"a": 1, "b": 1, "../c": 1}) == ["b"]
    assert third.enter({"a": 1, "../c": 1}) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["..%2Fc", "a", "b"]


def take_and_die(folder: Path) -> None:
    Places(folder).enter({"a": 1})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_holder_that_is_killed_leaves_his_place(tmp_path: Path) -> None:
    holder = multiprocessing.get_context("fork").Process(target=take_and_die, args=(tmp_path,))
    holder.start()
    holder.join()
    assert Places(tmp_path).enter({"a": 1}) == []
