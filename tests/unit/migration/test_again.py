"""A rolled back cutover is tried again, as often as was asked for; nothing else is."""

from __future__ import annotations

from itertools import chain, repeat

import pytest

from sealift.errors import MigrationFailed, OutcomeUnknown, Refused, SealiftError
from sealift.migration.again import again_after_rollback
from sealift.model import Step


class Migration:
    """Fails so many times, then succeeds."""

    def __init__(self, error: SealiftError, times: int = 1 << 20) -> None:
        self.errors = chain(repeat(error, times), repeat(None))
        self.runs = 0

    def __call__(self) -> str:
        self.runs += 1
        if error := next(self.errors):
            raise error
        return "made"


ROLLED_BACK = MigrationFailed("it broke", host="source", step=Step.RESTORE)


def test_two_rollbacks_are_followed_by_a_third_try() -> None:
    migration = Migration(ROLLED_BACK, 2)
    made, rollbacks = again_after_rollback(migration, 5)
    assert (made, migration.runs) == ("made", 3)
    assert len(rollbacks) == 2
    assert all("source, restore: it broke" in each for each in rollbacks)


@pytest.mark.parametrize("retries", [0, 3])
def test_the_last_rollback_is_raised(retries: int) -> None:
    migration = Migration(ROLLED_BACK)
    with pytest.raises(MigrationFailed):
        again_after_rollback(migration, retries)
    assert migration.runs == retries + 1


@pytest.mark.parametrize(
    "final",
    [
        Refused("no", step=Step.PREFLIGHT),
        OutcomeUnknown("who knows", step=Step.FINAL_DUMP),
        MigrationFailed("it ended after the commit", step=Step.FINISH),
        MigrationFailed("too long a freeze is predicted", step=Step.PRE_DUMP),
    ],
)
def test_what_was_no_rolled_back_cutover_is_final(final: SealiftError) -> None:
    migration = Migration(final)
    with pytest.raises(type(final)):
        again_after_rollback(migration, 3)
    assert migration.runs == 1
