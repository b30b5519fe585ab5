"""The step pre-dump: send pages in rounds while the container runs, until another round is not worth it.

For a post-copy, prepare the pages that follow later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed, MigrationFailed
from sealift.migration.results import Memory
from sealift.model import Round, Step, Strategy
from sealift_agent.constants import PAGE_BYTES
from sealift_agent.protocol import FinishPageServer, GatherPages, PreDump, SlowDown, StartPageServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sealift.host.agents import Caller
    from sealift.migration.request import Request
    from sealift.migration.results import Plan

SMALL_BYTES = 1 << 20
"""So few bytes cost less in the final dump than another round."""

PAYS = 0.7
"""A round is worth it if it leaves at most this share of what the round before sent."""


class Rounds:
    """The pre-dump rounds of one migration: `prepare` before the hosts are armed, `catch_up` while they are.

    Continues from the `memory` of an earlier attempt. `clock` counts nanoseconds.
    """

    def __init__(
        self,
        request: Request,
        plan: Plan,
        source: Caller,
        destination: Caller,
        memory: Memory | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._request = request
        self._plan = plan
        self._source = source
        self._destination = destination
        self._memory = memory or Memory()
        self._clock = clock

    def result(self) -> Memory:
        """What the rounds have sent so far."""
        return self._memory

    def prepare(self) -> int:
        """Prepare memory for the strategy while the container runs. Returns the bytes in huge pages for a post-copy.

        MigrationFailed if the rounds leave more for the freeze than allowed. Nothing is frozen then.
        """
        match self._plan.choice.strategy:
            case Strategy.PRE_COPY:
                self._send_rounds()
            case Strategy.POST_COPY:
                return self._source.call(GatherPages())
        return 0

    def start_page_server(self, name: str) -> int:
        """Let the destination take the pages of the next dump, as `name`. Returns the port."""
        return self._destination.call(
            StartPageServer(
                name, self._memory.last_images, self._request.options.compress, self._plan.streams
            )
        )

    def catch_up(self) -> None:
        """Send one more round with the destination armed, if enough time has passed since the last one.

        Arming takes a moment, or seconds on a slow host. Pages that get dirty in this time are sent now, so that fewer
        are left for the freeze.
        """
        memory = self._memory
        since_ms = (self._clock() - memory.ended_ns) / 1e6
        if catching_up_pays(memory.rounds, since_ms, throttled=memory.throttled_cpus is not None):
            self._send_round()

    def _send_rounds(self) -> None:
        """Send rounds as long as they are worth it, and slow a writer down if that is allowed."""
        most, budget = self._request.options.max_rounds, self._budget()
        while another_pays(self._memory.rounds, most, budget) or (
            self._request.options.throttle
            and would_converge(self._memory.rounds, most, budget)
            and self._slow_down()
        ):
            self._send_round()
        rounds = self._memory.rounds
        predicted = budget.predicted_ms(rounds) if budget is not None else None
        if budget is not None and predicted is not None and predicted > budget.freeze_ms:
            raise MigrationFailed(
                f"after {len(rounds)} rounds a freeze of {predicted:.0f} ms is predicted, {budget.freeze_ms:.0f} ms "
                "are allowed; nothing was frozen",
                host=self._request.source,
                step=Step.PRE_DUMP,
                remedy="Raise --max-downtime, have writers slowed down (--throttle), or take --strategy post-copy",
            )

    def _send_round(self) -> None:
        """Send one round. CRIU sends what changed since the last one directly to the destination's page server."""
        memory = self._memory
        number = len(memory.rounds) + 1
        name = f"round-{number}"
        started_ns = self._clock()
        port = self.start_page_server(name)
        dumped = self._source.call(PreDump(name, port))
        self._destination.call(FinishPageServer())
        made = Round(
            number=number,
            duration_ms=(self._clock() - started_ns) / 1e6,
            sent_bytes=dumped.statistics.get("pages_written", 0) * PAGE_BYTES,
            skipped_bytes=dumped.statistics.get("pages_skipped", 0) * PAGE_BYTES,
        )
        warnings = memory.warnings
        if dumped.whole and number == 1:
            warnings += (f"a write counts for the whole of a huge page: {dumped.whole}",)
        self._memory = replace(
            memory,
            rounds=(*memory.rounds, made),
            last_images=name,
            packed_bytes=memory.packed_bytes + dumped.packed_bytes,
            ended_ns=self._clock(),
            warnings=warnings,
        )

    def _slow_down(self) -> bool:
        """Leave the container half of the CPU time that it uses, until its freeze or another end of the migration."""
        memory = self._memory
        try:
            left = self._source.call(SlowDown())
        except CommandFailed as failed:
            warnings = (*memory.warnings, f"not throttled: {failed.message}")
            self._memory = replace(memory, warnings=warnings)
            return False
        if left is None:
            return False
        self._memory = replace(memory, throttled_cpus=left)
        return True

    def _budget(self) -> Budget | None:
        asked, estimate = self._request.options.max_downtime, self._plan.estimate
        if asked is None or estimate is None or estimate.link_bytes_s is None:
            return None
        return Budget(1000 * asked, estimate.floor_ms, estimate.link_bytes_s)


@dataclass(frozen=True)
class Budget:
    """The longest allowed freeze, and its inputs: the floor in milliseconds, the link's rate in bytes a second."""

    freeze_ms: float
    floor_ms: float
    link: float

    def predicted_ms(self, rounds: Sequence[Round]) -> float | None:
        """The predicted milliseconds of a freeze right after these rounds, by the dirty rate that they measured."""
        left = left_bytes(rounds)
        return None if left is None else self.floor_ms + 1000 * left / self.link

    def kept_after(self, rounds: Sequence[Round]) -> bool:
        """Whether a freeze right after these rounds is predicted to keep to the limit."""
        predicted = self.predicted_ms(rounds)
        return predicted is not None and predicted <= self.freeze_ms


def left_bytes(rounds: Sequence[Round]) -> float | None:
    """The predicted bytes that got dirty since the last round began. The last round measured the rate.

    None before the second round: the first one sends everything, and does not show what gets dirty.
    """
    if len(rounds) < 2:
        return None
    before, last = rounds[-2:]
    return last.sent_bytes * min(1.0, last.duration_ms / before.duration_ms)


def another_pays(rounds: Sequence[Round], most: int, budget: Budget | None = None) -> bool:
    """Whether to do another round after these: not if the freeze keeps to the budget, or if rounds no longer shrink.

    Rounds shrink if memory gets dirty more slowly than it is sent.
    """
    if len(rounds) >= most or (budget is not None and budget.kept_after(rounds)):
        return False
    if len(rounds) < 2:
        return not rounds or rounds[-1].sent_bytes > SMALL_BYTES
    return rounds[-1].sent_bytes > SMALL_BYTES and rounds[-1].sent_bytes <= PAYS * rounds[-2].sent_bytes


def catching_up_pays(rounds: Sequence[Round], since_ms: float, *, throttled: bool) -> bool:
    """Whether a round would take less time than has passed since these.

    False if the writer was faster than the rounds, unless it has been slowed down since.
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
    """Whether rounds have ended only because memory gets dirty too fast. Then a slower writer would help."""
    if len(rounds) >= most or (budget is not None and budget.kept_after(rounds)):
        return False
    return len(rounds) > 1 and rounds[-1].sent_bytes > SMALL_BYTES
