"""Pre-dump: pages go ahead in rounds while the container runs, until another round no longer pays.

Those that follow after the switch are made ready instead.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed, MigrationFailed
from sealift.model import Round, Step, Strategy
from sealift_agent.constants import PAGE_BYTES
from sealift_agent.protocol import FinishPageServer, GatherPages, PreDump, SlowDown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.migration.session import Session

SMALL_BYTES = 1 << 20
"""What is this little costs less in the final dump than another round."""

PAYS = 0.7
"""A round pays if it leaves at most this share of what the round before had to send."""


def prepare(session: Session) -> int:
    """What a strategy does with memory while the container runs. Returns the bytes that are in huge pages for it."""
    match session.found.choice.strategy:
        case Strategy.PRE_COPY:
            pre_dump(session)
        case Strategy.POST_COPY:
            return session.sender.call(GatherPages())
    return 0


def pre_dump_round(session: Session) -> Round:
    """One round. CRIU sends what has changed since the last one straight to the destination's page server."""
    number = len(session.found.rounds) + 1
    name = f"round-{number}"
    started_ns = time.monotonic_ns()
    port = session.start_page_server(name)
    dumped = session.sender.call(PreDump(name, port))
    stats = dumped.statistics
    session.receiver.call(FinishPageServer())
    made = Round(
        number=number,
        duration_ms=(time.monotonic_ns() - started_ns) / 1e6,
        sent_bytes=stats.get("pages_written", 0) * PAGE_BYTES,
        skipped_bytes=stats.get("pages_skipped", 0) * PAGE_BYTES,
    )
    session.found.last_images = name
    session.found.packed_bytes += dumped.packed_bytes
    if dumped.whole and number == 1:
        session.found.warnings.append(f"a write counts for the whole of a huge page: {dumped.whole}")
    session.found.rounds.append(made)
    session.found.round_ended_ns = time.monotonic_ns()
    return made


@dataclass(frozen=True)
class Budget:
    """The longest freeze, and what it is made of: its floor in milliseconds, the link's rate in bytes a second."""

    freeze_ms: float
    floor_ms: float
    link: float

    def predicted_ms(self, rounds: Sequence[Round]) -> float | None:
        """How long a freeze right after these rounds would take, by the dirty rate that they measured."""
        left = left_bytes(rounds)
        return None if left is None else self.floor_ms + 1000 * left / self.link

    def kept_after(self, rounds: Sequence[Round]) -> bool:
        """Whether a freeze right after these rounds is known to keep to it."""
        predicted = self.predicted_ms(rounds)
        return predicted is not None and predicted <= self.freeze_ms


def left_bytes(rounds: Sequence[Round]) -> float | None:
    """What has got dirty since the last round looked: as much in its time as it found of the time before it.

    None before the second round: the first one sends everything, and tells nothing of what gets dirty.
    """
    if len(rounds) < 2:
        return None
    before, last = rounds[-2:]
    return last.sent_bytes * min(1.0, last.duration_ms / before.duration_ms)


def another_pays(rounds: Sequence[Round], most: int, budget: Budget | None = None) -> bool:
    """Whether to do another round after these: not once the freeze keeps to the budget, or rounds shrink no more.

    A round shrinks as far as memory gets dirty more slowly than the round before sent it.
    """
    if len(rounds) >= most or (budget is not None and budget.kept_after(rounds)):
        return False
    if len(rounds) < 2:
        return not rounds or rounds[-1].sent_bytes > SMALL_BYTES
    return rounds[-1].sent_bytes > SMALL_BYTES and rounds[-1].sent_bytes <= PAYS * rounds[-2].sent_bytes


def pre_dump(session: Session) -> None:
    """Rounds as long as they pay, with a slower writer if that may be.

    MigrationFailed, with nothing frozen yet, if they leave more for the freeze than was allowed.
    """
    request, rounds = session.request, session.found.rounds
    budget = _budget(session)
    while another_pays(rounds, request.options.max_rounds, budget) or (
        request.options.throttle
        and would_converge(rounds, request.options.max_rounds, budget)
        and _slow_down(session)
    ):
        pre_dump_round(session)
    predicted = budget.predicted_ms(rounds) if budget is not None else None
    if budget is not None and predicted is not None and predicted > budget.freeze_ms:
        raise MigrationFailed(
            f"after {len(rounds)} rounds a freeze of {predicted:.0f} ms is predicted, {budget.freeze_ms:.0f} ms are "
            "allowed; nothing was frozen",
            host=session.source.name,
            step=Step.PRE_DUMP,
            remedy="Raise --max-downtime, have writers slowed down (--throttle), or take --strategy post-copy",
        )


def catch_up(session: Session) -> None:
    """One more round, with the destination armed, if so much time has passed since the last that it pays.

    Arming takes a moment, or seconds on a slow host, in which pages get dirty: sent now, only those of
    the rest of it are left to the freeze.
    """
    since_ms = (time.monotonic_ns() - session.found.round_ended_ns) / 1e6
    if catching_up_pays(session.found.rounds, since_ms, throttled=session.found.throttled_cpus is not None):
        pre_dump_round(session)


def catching_up_pays(rounds: Sequence[Round], since_ms: float, *, throttled: bool) -> bool:
    """Whether a round would take less time than has passed since these.

    Not where the writer outran them: unless it has been slowed down, it would do so again.
    """
    if len(rounds) < 2:
        return False
    before, last = rounds[-2:]
    if last.sent_bytes > PAYS * before.sent_bytes and not throttled:
        return False
    dirty = min(last.sent_bytes / before.duration_ms * since_ms, rounds[0].sent_bytes)
    fastest = max(made.sent_bytes / made.duration_ms for made in rounds)
    return dirty > SMALL_BYTES and dirty / fastest < since_ms


def would_converge(rounds: Sequence[Round], most: int, budget: Budget | None = None) -> bool:
    """Whether rounds have come to an end only because memory gets dirty too fast: a slower writer would help."""
    if len(rounds) >= most or (budget is not None and budget.kept_after(rounds)):
        return False
    return len(rounds) > 1 and rounds[-1].sent_bytes > SMALL_BYTES


def _slow_down(session: Session) -> bool:
    """Leave the container half of the CPU time that it uses, until its freeze or whatever else ends the migration."""
    try:
        left = session.sender.call(SlowDown())
    except CommandFailed as failed:
        session.found.warnings.append(f"not throttled: {failed.message}")
        return False
    if left is None:
        return False
    session.found.throttled_cpus = left
    return True


def _budget(session: Session) -> Budget | None:
    asked, estimate = session.request.options.max_downtime, session.found.estimate
    if asked is None or estimate is None or estimate.link_bytes_s is None:
        return None
    return Budget(1000 * asked, estimate.floor_ms, estimate.link_bytes_s)
