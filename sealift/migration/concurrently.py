"""A migration's steps without a scheduler: the members of a group at once, each in a thread of its own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sealift.errors import HostUnreachable
from sealift.migration import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sealift.migration.cutover import Cutover
    from sealift.migration.results import Moved
    from sealift.migration.steps import Inputs, Result


class Concurrently:
    """A `steps.Runner` that works like task runs, but in this process.

    Some steps are repeated if a host does not answer.
    """

    def in_turn(self, step: Callable[[*Inputs], Result], members: Iterable[tuple[*Inputs]]) -> list[Result]:
        """See `steps.Runner`."""
        return [_tried(step, *inputs) for inputs in members]

    def at_once(self, step: Callable[[*Inputs], Result], members: Iterable[tuple[*Inputs]]) -> list[Result]:
        """See `steps.Runner`."""
        each = list(members)
        if len(each) == 1:
            return self.in_turn(step, each)
        with ThreadPoolExecutor(len(each)) as pool:  # leaving the block waits for all of them
            runs = [pool.submit(lambda inputs: _tried(step, *inputs), inputs) for inputs in each]
        return [run.result() for run in runs]

    def cut_over(self, cutovers: Sequence[Cutover]) -> list[Moved]:
        """See `steps.Runner`."""
        with ThreadPoolExecutor(
            len(cutovers)
        ) as pool:  # leaving the block waits until all have begun, or failed
            begun = {cutover: pool.submit(cutover.begin) for cutover in cutovers}

        def end(cutover: Cutover) -> None:
            begun[cutover].result()
            steps.watch(cutover)

        return steps.outcomes(cutovers, end)


def _tried(step: Callable[[*Inputs], Result], *inputs: *Inputs) -> Result:
    left = steps.RETRIES if any(step is each for each in steps.TRIED_AGAIN) else 0
    while True:
        try:
            return step(*inputs)
        except HostUnreachable:
            if not left:
                raise
            left -= 1
            time.sleep(steps.RETRY_DELAY_S)
