"""Which strategy, how many rounds."""

from __future__ import annotations

import pytest

from sealift.errors import Refused
from sealift.migration.choice import choose
from sealift.migration.predump import SMALL_BYTES, Budget, another_pays, left_bytes
from sealift.model import Estimate, Prediction, Round, Strategy


def rounds(*sent_mb: float) -> list[Round]:
    return [
        Round(number=n, duration_ms=1, sent_bytes=int(mb * (1 << 20)), skipped_bytes=0)
        for n, mb in enumerate(sent_mb)
    ]


@pytest.mark.parametrize(
    ("sent_mb", "pays"),
    [
        ((), True),
        ((100,), True),
        ((0.5,), False),
        ((100, 20), True),
        ((100, 90), False),
        ((100, 20, 0.9), False),
        ((100, 20, 14), True),
        ((100, 60, 30, 15, 8), False),
    ],
)
def test_another_round_pays_as_long_as_rounds_shrink_and_are_not_small(
    sent_mb: tuple[float, ...], pays: bool
) -> None:
    assert another_pays(rounds(*sent_mb), most=5) is pays


def test_small_is_a_mebibyte() -> None:
    assert SMALL_BYTES == 1 << 20


def test_pre_copy_where_the_kernel_tracks_dirty_pages() -> None:
    assert choose(Strategy.AUTO, dirty_tracking=True).strategy == Strategy.PRE_COPY
    assert choose(Strategy.PRE_COPY, dirty_tracking=True).strategy == Strategy.PRE_COPY


def test_stop_and_copy_elsewhere_with_the_reason() -> None:
    choice = choose(Strategy.AUTO, dirty_tracking=False)
    assert choice.strategy == Strategy.STOP_AND_COPY
    assert "does not track dirty pages" in choice.why


def test_what_is_asked_for_is_done_or_refused() -> None:
    assert choose(Strategy.STOP_AND_COPY, dirty_tracking=True).strategy == Strategy.STOP_AND_COPY
    with pytest.raises(
        Refused, match=r"preflight: the source's kernel does not track.*--strategy stop-and-copy"
    ):
        choose(Strategy.PRE_COPY, dirty_tracking=False)


def test_post_copy_only_on_request_and_only_where_both_hosts_can() -> None:
    assert choose(Strategy.POST_COPY, dirty_tracking=True).strategy == Strategy.POST_COPY
    for dirty_tracking in (True, False):
        assert choose(Strategy.AUTO, dirty_tracking=dirty_tracking).strategy != Strategy.POST_COPY
    with pytest.raises(Refused, match=r"userfaultfd on source and destination.*--strategy auto"):
        choose(Strategy.POST_COPY, dirty_tracking=True, not_lazy=["source", "destination"])


def estimate(**freeze_ms: float) -> Estimate:
    """Predictions for some strategies, by their names with underscores."""
    predictions = [
        Prediction(strategy=Strategy(name.replace("_", "-")), freeze_ms=freeze, total_ms=9000)
        for name, freeze in freeze_ms.items()
    ]
    return Estimate(
        memory_bytes=10**8,
        dirty_bytes_s=10**6,
        dirty_how="soft-dirty",
        link_bytes_s=10**8,
        link_how="measured",
        floor_ms=300,
        fixed_ms=3000,
        learned=False,
        predictions=predictions,
    )


ALL = {"stop_and_copy": 1300.0, "pre_copy": 400.0, "post_copy": 300.0}


@pytest.mark.parametrize(
    ("max_downtime_s", "chosen"),
    [
        (2, Strategy.STOP_AND_COPY),
        (1.3, Strategy.STOP_AND_COPY),
        (1, Strategy.PRE_COPY),
        (0.3, Strategy.POST_COPY),
    ],
)
def test_auto_takes_the_least_risky_that_keeps_to_the_limit(max_downtime_s: float, chosen: Strategy) -> None:
    found = choose(
        Strategy.AUTO, dirty_tracking=True, estimate=estimate(**ALL), max_downtime_s=max_downtime_s
    )
    assert found.strategy == chosen
    assert f"{1000 * max_downtime_s:.0f} ms are allowed" in found.why


def test_a_limit_that_none_keeps_to_is_refused_with_the_predictions_and_a_remedy() -> None:
    with pytest.raises(Refused, match=r"stop-and-copy 1300 ms, pre-copy 400 ms.*Raise --max-downtime"):
        choose(Strategy.AUTO, dirty_tracking=True, estimate=estimate(**ALL), max_downtime_s=0.2)
    with pytest.raises(Refused, match="not possible here: post-copy, pre-copy"):
        choose(Strategy.AUTO, dirty_tracking=False, estimate=estimate(stop_and_copy=1300), max_downtime_s=0.2)


def test_a_strategy_asked_for_by_name_is_held_to_the_limit_too() -> None:
    given = {"dirty_tracking": True, "estimate": estimate(**ALL)}
    assert choose(Strategy.PRE_COPY, **given, max_downtime_s=0.5).strategy == Strategy.PRE_COPY
    with pytest.raises(Refused, match="stop-and-copy 1300 ms"):
        choose(Strategy.STOP_AND_COPY, **given, max_downtime_s=0.5)


def test_nothing_is_promised_where_nothing_could_be_predicted() -> None:
    for unknown in (None, estimate()):
        with pytest.raises(Refused, match=r"no freeze can be predicted.*--bandwidth"):
            choose(Strategy.AUTO, dirty_tracking=True, estimate=unknown, max_downtime_s=5)


def timed(*sent_and_took: tuple[float, float]) -> list[Round]:
    """Rounds of so many megabytes in so many seconds."""
    return [
        Round(number=n, duration_ms=1000 * took, sent_bytes=int(sent * 1e6), skipped_bytes=0)
        for n, (sent, took) in enumerate(sent_and_took)
    ]


def test_what_is_left_follows_from_the_dirty_rate_that_the_rounds_measured() -> None:
    assert left_bytes(timed((100, 1))) is None
    assert left_bytes(timed((100, 2), (20, 0.5))) == 5e6
    assert left_bytes(timed((100, 1), (20, 4))) == 20e6


def test_rounds_stop_when_the_freeze_keeps_to_the_budget() -> None:
    rounds = timed((100, 2), (20, 0.5))
    assert another_pays(rounds, most=5)
    roomy, tight = (Budget(freeze_ms=ms, floor_ms=300, link=1e8) for ms in (351, 349))
    assert roomy.predicted_ms(rounds) == 350
    assert not another_pays(rounds, 5, roomy)
    assert another_pays(rounds, 5, tight)
    assert another_pays(timed((100, 2)), 5, roomy), "after one round nothing is known of what gets dirty"
    assert not another_pays(timed((100, 2), (90, 1.8)), 5, tight), "a writer as fast as the link"
