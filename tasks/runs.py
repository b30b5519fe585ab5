"""A migration's steps as Prefect's task runs: what runs them in the order that `sealift.migration.steps` has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sealift.migration import steps
from tasks.attest import attest
from tasks.final_dump import final_dump
from tasks.finish import finish
from tasks.network_switch import network_switch
from tasks.pre_dump import pre_dump
from tasks.preflight import preflight
from tasks.provision_keys import provision_keys
from tasks.restore import restore
from tasks.sync import sync
from tasks.transfer import transfer
from tasks.watching import Watchers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prefect.futures import PrefectFuture

    from sealift.migration.cutover import Cutover
    from sealift.migration.results import Moved
    from sealift.migration.steps import Inputs, Result

TASKS: dict[Callable[..., Any], Any] = {
    steps.attest: attest,
    steps.provision_keys: provision_keys,
    steps.preflight: preflight,
    steps.sync: sync,
    steps.pre_dump: pre_dump,
    steps.finish: finish,
}
WATCHING = (transfer, restore, network_switch)


class TaskRuns:
    """A `steps.Runner`, to be used inside of a flow."""

    def in_turn(self, step: Callable[[*Inputs], Result], members: Iterable[tuple[*Inputs]]) -> list[Result]:
        """See `steps.Runner`."""
        return [TASKS[step](*inputs) for inputs in members]

    def at_once(self, step: Callable[[*Inputs], Result], members: Iterable[tuple[*Inputs]]) -> list[Result]:
        """See `steps.Runner`. A migration of one needs no task runner's thread for it."""
        each = list(members)
        if len(each) == 1:
            return self.in_turn(step, each)
        runs = [TASKS[step].submit(*inputs) for inputs in each]
        for run in runs:
            run.wait()
        return [run.result() for run in runs]

    def cut_over(self, cutovers: Sequence[Cutover]) -> list[Moved]:
        """See `steps.Runner`. The four tasks of each are under way before the hosts are armed, and three only watch."""
        chains = {cutover: _watch(cutover) for cutover in cutovers}
        return steps.outcomes(cutovers, lambda cutover: [run.result() for run in chains[cutover]])


def _watch(cutover: Cutover) -> list[PrefectFuture[Any]]:
    """Submit the tasks of a cutover. Their futures, in the order of the protocol."""
    watchers = Watchers(len(WATCHING))
    watching = [each.submit(cutover, watchers) for each in WATCHING]
    return [final_dump.submit(cutover, watchers), *watching]
