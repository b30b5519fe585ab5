"""Prefect's task runs of a migration: every step has one, and those that watch the cutover keep out of its freeze."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from sealift.migration import steps
from sealift.migration.results import Memory
from sealift.model import CUTOVER, Step
from tasks import watching
from tasks.runs import TASKS, WATCHING, TaskRuns
from tasks.watching import Watchers

if TYPE_CHECKING:
    from sealift.migration.cutover import Cutover

WAIT_S = 5


def test_every_step_has_a_task_of_its_name() -> None:
    names = [task.name for task in TASKS.values()] + ["final dump", *(task.name for task in WATCHING)]
    assert sorted(names) == sorted(step.value for step in Step)
    assert [task.name for task in WATCHING] == [step.value for step in CUTOVER[1:]]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_nothing_of_a_step_is_kept_by_prefect(task: Any) -> None:
    """Sessions and results hold connections: they are of this process, and of no other run."""
    assert task.persist_result is False
    assert task.cache_policy.__class__.__name__ == "_None"


def test_the_steps_are_run_in_the_order_of_the_protocol() -> None:
    ran: list[str] = []

    class Recording(steps.InTurn):
        def in_turn(self, step: Any, members: Any) -> Any:
            ran.append(TASKS[step].name)
            return [SimpleNamespace(step=TASKS[step].name, memory=Memory(), plan=None) for _ in members]

        at_once = in_turn

    [ready] = steps.prepare([cast("Any", None)], Recording())
    assert ran == [step.value for step in Step][: len(ran)]
    assert ready.steps == tuple(ran)
    assert ran[-1] == "pre-dump"


class Over:
    """A cutover that has ended, well or not."""

    def __init__(self, *, reached: bool) -> None:
        self.reached = reached

    def wait(self, step: Step) -> None:
        pass

    def has_reached(self, _: Step) -> bool:
        return self.reached

    def record(self, step: Step) -> Step:
        return step


def test_the_word_is_not_given_before_all_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "QUIET_BEFORE_S", 0)
    watchers, began = Watchers(2), threading.Event()

    def begin() -> None:
        watchers.wait_for_all()
        began.set()

    threading.Thread(target=begin, daemon=True).start()
    watchers.attend()
    assert not began.wait(0.1)
    watchers.attend()
    assert began.wait(WAIT_S)


def test_a_watcher_that_never_comes_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "ATTEND_TIMEOUT_S", 0.05)
    monkeypatch.setattr(watching, "QUIET_BEFORE_S", 0)
    Watchers(3).wait_for_all()


@pytest.mark.parametrize(("reached", "quiet_s"), [(True, 0.2), (False, 0.0)])
def test_a_task_run_ends_a_moment_after_the_commit(
    monkeypatch: pytest.MonkeyPatch, reached: bool, quiet_s: float
) -> None:
    monkeypatch.setattr(watching, "QUIET_AFTER_S", 0.2)
    began = time.monotonic()
    cutover = cast("Cutover", Over(reached=reached))
    assert Watchers(0).record(cutover, Step.RESTORE) is Step.RESTORE
    assert time.monotonic() - began >= quiet_s


def test_a_migration_of_one_runs_its_tasks_in_turn() -> None:
    ran: list[str] = []

    class Runs(TaskRuns):
        def in_turn(self, step: Any, members: Any) -> Any:
            ran.append(TASKS[step].name)
            return [each for (each,) in members]

    assert Runs().at_once(steps.attest, [(cast("Any", 1),)]) == [1]
    assert ran == ["attest"]
