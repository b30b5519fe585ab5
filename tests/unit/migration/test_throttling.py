"""When a writer is slowed down: only where that is what keeps the rounds from coming to an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from sealift.errors import CommandFailed, MigrationFailed
from sealift.migration import predump
from sealift.migration.request import Options, Request
from sealift.model import Round
from sealift_agent.protocol import SlowDown

if TYPE_CHECKING:
    from collections.abc import Callable


def session(
    sent_mb: Callable[[float], float], *, max_rounds: int = 8, throttle: bool = True, **options: Any
) -> Mock:
    """A session whose rounds send what a writer with so many CPUs gets dirty."""
    made = Mock()
    asked = Options(max_rounds=max_rounds, throttle=throttle, **options)
    made.request = Request("box", "source", "destination", asked)
    made.found = Mock(rounds=[], throttled_cpus=None, warnings=[])
    made.cpus = 1.0
    made.sent_mb = sent_mb

    def call(order: SlowDown) -> float | None:
        assert isinstance(order, SlowDown)
        if made.cpus <= 0.05:
            return None
        made.cpus = max(0.05, made.cpus / 2)
        return float(made.cpus)

    made.sender.call = call
    return made


@pytest.fixture(autouse=True)
def _rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def pre_dump_round(made: Mock) -> None:
        number = len(made.found.rounds)
        sent = 100.0 if number == 0 else made.sent_mb(made.cpus)
        made.found.rounds.append(
            Round(number=number, duration_ms=1000, sent_bytes=int(sent * 1e6), skipped_bytes=0)
        )

    monkeypatch.setattr(predump, "pre_dump_round", pre_dump_round)


def test_a_writer_faster_than_the_link_is_slowed_down_until_rounds_shrink() -> None:
    made = session(lambda cpus: 120 * cpus)
    predump.pre_dump(made)
    assert made.found.throttled_cpus is not None
    assert made.found.rounds[-1].sent_bytes < 0.2 * made.found.rounds[1].sent_bytes


def test_nobody_is_slowed_down_who_converges() -> None:
    made = session(lambda _: 0.5)
    predump.pre_dump(made)
    assert made.found.throttled_cpus is None


def test_nobody_is_slowed_down_unasked() -> None:
    made = session(lambda cpus: 120 * cpus, throttle=False)
    predump.pre_dump(made)
    assert made.found.throttled_cpus is None
    assert len(made.found.rounds) == 2


def test_it_comes_to_an_end() -> None:
    stubborn = session(lambda _: 100, max_rounds=30)
    predump.pre_dump(stubborn)
    assert stubborn.found.throttled_cpus == 0.05
    assert len(stubborn.found.rounds) <= 8
    limited = session(lambda _: 100, max_rounds=3)
    predump.pre_dump(limited)
    assert len(limited.found.rounds) == 3


def test_a_kernel_without_quotas_is_a_warning() -> None:
    made = session(lambda _: 100)
    made.sender.call = Mock(side_effect=CommandFailed("the kernel has no CPU quota"))
    predump.pre_dump(made)
    assert made.found.warnings == ["not throttled: the kernel has no CPU quota"]


def test_what_does_not_keep_to_the_limit_after_all_rounds_fails_before_the_freeze() -> None:
    made = session(lambda _: 100, throttle=False, max_downtime=0.5)
    made.found.estimate = Mock(link_bytes_s=1e8, floor_ms=200)
    made.source.name = "source"
    with pytest.raises(MigrationFailed, match=r"after 2 rounds a freeze of 1200 ms .* nothing was frozen"):
        predump.pre_dump(made)


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
