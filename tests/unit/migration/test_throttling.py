"""When a writer is slowed down: only where that is what keeps the rounds from coming to an end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from parties_at_hand import ready

from sealift.errors import CommandFailed, MigrationFailed
from sealift.migration import predump
from sealift.migration.request import Options, Request
from sealift.model import Choice, Estimate, Round, Strategy
from sealift_agent.constants import PAGE_BYTES
from sealift_agent.protocol import Dumped, FinishPageServer, PreDump, SlowDown, StartPageServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.migration.results import Memory


class Hosts:
    """Both hosts of a writer that, with so many CPUs, gets `sent_mb` dirty in a round of one second."""

    def __init__(self, sent_mb: Callable[[float], float], *, quota: bool = True) -> None:
        self.sent_mb = sent_mb
        self.quota = quota
        self.cpus = 1.0
        self.now_ns = 0
        self.rounds = 0

    def call(self, order: Any, *, timeout_s: float = 0) -> Any:
        match order:
            case StartPageServer():
                return 4711
            case PreDump():
                sent_mb = self.sent_mb(self.cpus) if self.rounds else 100.0
                self.rounds += 1
                self.now_ns += 10**9
                return Dumped({"pages_written": int(sent_mb * 1e6) // PAGE_BYTES}, 0, None)
            case FinishPageServer():
                return None
            case SlowDown() if not self.quota:
                raise CommandFailed("the kernel has no CPU quota")
            case SlowDown():
                if self.cpus <= 0.05:
                    return None
                self.cpus = max(0.05, self.cpus / 2)
                return self.cpus
        raise AssertionError(order)


ESTIMATE = Estimate(
    memory_bytes=10**8,
    dirty_bytes_s=1e8,
    dirty_how="soft-dirty",
    link_bytes_s=1e8,
    link_how="measured",
    floor_ms=200,
    fixed_ms=0,
    learned=True,
    predictions=[],
)
PLAN = replace(ready().plan, choice=Choice(strategy=Strategy.PRE_COPY, why=""), estimate=ESTIMATE)


def pre_dumped(hosts: Hosts, **asked: Any) -> Memory:
    options = Options(**{"max_rounds": 8, "throttle": True, **asked})
    request = Request("box", "source", "destination", options)
    made = predump.Rounds(request, PLAN, hosts, hosts, clock=lambda: hosts.now_ns)
    made.prepare()
    return made.result()


def test_a_writer_faster_than_the_link_is_slowed_down_until_rounds_shrink() -> None:
    memory = pre_dumped(Hosts(lambda cpus: 120 * cpus))
    assert memory.throttled_cpus is not None
    assert memory.rounds[-1].sent_bytes < 0.2 * memory.rounds[1].sent_bytes


def test_nobody_is_slowed_down_who_converges() -> None:
    assert pre_dumped(Hosts(lambda _: 0.5)).throttled_cpus is None


def test_nobody_is_slowed_down_unasked() -> None:
    memory = pre_dumped(Hosts(lambda cpus: 120 * cpus), throttle=False)
    assert memory.throttled_cpus is None
    assert len(memory.rounds) == 2


def test_it_comes_to_an_end() -> None:
    stubborn = pre_dumped(Hosts(lambda _: 100), max_rounds=30)
    assert stubborn.throttled_cpus == 0.05
    assert len(stubborn.rounds) <= 8
    assert len(pre_dumped(Hosts(lambda _: 100), max_rounds=3).rounds) == 3


def test_a_kernel_without_quotas_is_a_warning() -> None:
    memory = pre_dumped(Hosts(lambda _: 100, quota=False))
    assert memory.warnings == ("not throttled: the kernel has no CPU quota",)


def test_what_does_not_keep_to_the_limit_after_all_rounds_fails_before_the_freeze() -> None:
    with pytest.raises(MigrationFailed, match=r"after 2 rounds a freeze of 1200 ms .* nothing was frozen"):
        pre_dumped(Hosts(lambda _: 100), throttle=False, max_downtime=0.5)


def test_a_round_builds_on_the_images_of_the_one_before() -> None:
    hosts = Hosts(lambda _: 100)
    orders: list[Any] = []

    class Listening(Hosts):
        def call(self, order: Any, *, timeout_s: float = 0) -> Any:
            orders.append(order)
            return super().call(order)

    memory = pre_dumped(hosts := Listening(hosts.sent_mb), throttle=False)
    begun = [(order.name, order.previous) for order in orders if isinstance(order, StartPageServer)]
    assert begun == [("round-1", None), ("round-2", "round-1")]
    assert memory.last_images == "round-2"
    assert memory.ended_ns == hosts.now_ns


def rounds(*made: tuple[float, float]) -> list[Round]:
    """Rounds by megabytes and seconds."""
    return [
        Round(number=number, duration_ms=1000 * seconds, sent_bytes=int(mb * 1e6), skipped_bytes=0)
        for number, (mb, seconds) in enumerate(made, 1)
    ]


@pytest.mark.parametrize(
    ("made", "since_s", "throttled", "pays"),
    [
        pytest.param(rounds((100, 20), (40, 8), (16, 3)), 6, False, True, id="2 MB/s in six seconds"),
        pytest.param(rounds((100, 20), (40, 8), (16, 3)), 0.4, False, False, id="next to nothing"),
        pytest.param(rounds((100, 1), (0.1, 0.3)), 6, False, False, id="hardly a writer"),
        pytest.param(rounds((100, 20), (98, 20)), 6, False, False, id="outruns the link"),
        pytest.param(rounds((100, 20), (98, 20), (80, 16)), 6, True, True, id="slowed down"),
        pytest.param(rounds((100, 20), (110, 20)), 6, True, False, id="slowed down in vain"),
        pytest.param(rounds((100, 20)), 6, False, False, id="no rate is known"),
        pytest.param([], 6, False, False, id="no rounds"),
    ],
)
def test_a_round_is_made_up_for_arming_where_it_takes_less_than_that(
    made: list[Round], since_s: float, throttled: bool, pays: bool
) -> None:
    assert predump.catching_up_pays(made, 1000 * since_s, throttled=throttled) is pays
