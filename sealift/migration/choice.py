"""Choose the strategy: the requested one if it is possible, or one by the hosts' abilities and the predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.errors import Refused
from sealift.model import Choice, Step, Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.model import Estimate

UNTRACKED = (
    "the source's kernel does not track dirty pages (CONFIG_MEM_SOFT_DIRTY), so there can be no pre-dump"
)


def choose(
    asked: Strategy,
    dirty_tracking: bool,
    not_lazy: Sequence[str] = (),
    *,
    estimate: Estimate | None = None,
    max_downtime_s: float | None = None,
) -> Choice:
    """The strategy. Refused if the requested one is not possible, or if no prediction keeps to `max_downtime_s`.

    `not_lazy` names the hosts where CRIU can't bring a process's memory after its start.
    """
    if asked == Strategy.POST_COPY and not_lazy:
        where = " and ".join(not_lazy)
        raise _refused(
            f"CRIU can't work with userfaultfd on {where}, so memory can't follow afterwards",
            "Take --strategy auto",
        )
    if asked == Strategy.PRE_COPY and not dirty_tracking:
        raise _refused(UNTRACKED, "Take --strategy stop-and-copy or auto")
    if max_downtime_s is not None:
        return _within(asked, estimate, 1000 * max_downtime_s)
    if asked in {Strategy.STOP_AND_COPY, Strategy.POST_COPY}:
        return Choice(strategy=asked, why="asked for")
    if dirty_tracking:
        return Choice(strategy=Strategy.PRE_COPY, why="the source's kernel tracks dirty pages")
    return Choice(strategy=Strategy.STOP_AND_COPY, why=UNTRACKED)


def _within(asked: Strategy, estimate: Estimate | None, limit_ms: float) -> Choice:
    """The least risky of the requested strategies whose predicted freeze keeps to the limit."""
    if estimate is None or not estimate.predictions:
        why = estimate.link_how if estimate is not None else "nothing was sampled"
        raise _refused(
            f"no freeze can be predicted, so none can be promised within {limit_ms:.0f} ms (link {why})",
            "Give the link's rate with --bandwidth, or leave --max-downtime out",
        )
    possible = [one for one in estimate.predictions if asked in {Strategy.AUTO, one.strategy}]
    for one in possible:
        if one.freeze_ms <= limit_ms:
            why = f"a freeze of {one.freeze_ms:.0f} ms is predicted, {limit_ms:.0f} ms are allowed"
            return Choice(strategy=one.strategy, why=why)
    said = ", ".join(f"{one.strategy} {one.freeze_ms:.0f} ms" for one in possible) or f"{asked}: not possible"
    missing = {Strategy.PRE_COPY, Strategy.POST_COPY} - {one.strategy for one in estimate.predictions}
    unavailable = f"; not possible here: {', '.join(sorted(missing))}" if missing else ""
    raise _refused(
        f"the freeze is predicted to take longer than the {limit_ms:.0f} ms allowed ({said}{unavailable})",
        "Raise --max-downtime, quiet the container's writers, or take a faster link",
    )


def _refused(why: str, remedy: str) -> Refused:
    return Refused(why, step=Step.PREFLIGHT, remedy=remedy, reasons=(why,))
