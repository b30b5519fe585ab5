"""Which strategy, how many rounds."""

from __future__ import annotations

import pytest

from sealift.errors import Refused
from sealift.migration.predump import SMALL_BYTES, another_pays
from sealift.migration.preflight import choose
from sealift.model import Round, Strategy


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
