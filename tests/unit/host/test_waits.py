"""How long restored processes wait for pages that follow."""

from __future__ import annotations

from sealift_agent.constants import PAGE_BYTES
from sealift_agent.memory.missing import Missing
from sealift_agent.memory.waits import Waits

ONE, OTHER = "one process", "another process"


class Clock:
    """Set by the test."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def waits() -> tuple[Waits, Clock]:
    clock = Clock()
    return Waits(clock), clock


def test_the_process_that_waited_most_is_told_with_all_its_waits() -> None:
    made, clock = waits()
    made.resume()
    for memory, begin, end in [(ONE, 10, 30), (ONE, 40, 70), (OTHER, 70, 105)]:
        clock.now = begin
        made.begin(memory, 0x1000)
        clock.now = end
        made.end(memory, 0x1000)
    clock.now = 200
    assert made.told() == {"most_ns": 50, "longest_ns": 35, "faults": 3, "complete_ns": 200}


def test_the_time_of_several_threads_counts_once() -> None:
    made, clock = waits()
    made.resume()
    made.begin(ONE, 0x1000)
    clock.now = 10
    made.begin(ONE, 0x2000)
    clock.now = 20
    made.end(ONE, 0x1000)
    clock.now = 25
    made.end(ONE, 0x2000)
    assert made.told() == {"most_ns": 25, "longest_ns": 20, "faults": 2, "complete_ns": 25}


def test_what_a_restore_waits_for_is_no_stall() -> None:
    made, clock = waits()
    made.begin(ONE, 0x1000)
    clock.now = 10
    made.end(ONE, 0x1000)
    made.resume()
    clock.now = 15
    assert made.told() == {"most_ns": 0, "longest_ns": 0, "faults": 0, "complete_ns": 5}


def test_a_wait_ends_when_the_page_is_missing_no_more() -> None:
    made, clock = waits()
    missing = Missing([(0, 4 * PAGE_BYTES)])
    made.resume()
    made.begin(ONE, 0)
    made.begin(ONE, PAGE_BYTES)
    clock.now = 7
    missing.remove(0, PAGE_BYTES)
    made.settle(ONE, missing)
    assert made.told()["longest_ns"] == 7
    clock.now = 9
    missing.clear()
    made.settle(ONE, missing)
    assert made.told() == {"most_ns": 9, "longest_ns": 9, "faults": 2, "complete_ns": 9}
