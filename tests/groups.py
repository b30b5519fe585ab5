"""A group of containers that moves without Prefect, step by step."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import TYPE_CHECKING

from benchmarks.engine import prepare
from sealift.errors import SealiftError
from sealift.migration import group, steps
from sealift.model import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.migration.cutover import Cutover
    from sealift.migration.session import Session


@contextmanager
def armed(hosts: Hosts, *names: str) -> Iterator[tuple[list[Session], list[Cutover]]]:
    """Their sessions and cutovers, ready for the freeze. At the end of the block all is put away."""
    with ExitStack() as stack:
        sessions = group.open_sessions(hosts.inventory, [hosts.request(name) for name in names], stack)
        cutovers = steps.cutovers(sessions, [prepare(session) for session in sessions])
        for cutover in cutovers:
            cutover.arm()
        yield sessions, cutovers


def begin(cutovers: list[Cutover]) -> dict[Cutover, SealiftError]:
    """Let them move at once, and wait for the decision. Returns how each has failed that has."""
    failures: dict[Cutover, SealiftError] = {}
    threads = [Thread(target=cutover.begin) for cutover in cutovers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for cutover in cutovers:
        cutover.wait(Step.NETWORK_SWITCH)
        try:
            cutover.record(Step.NETWORK_SWITCH)
        except SealiftError as failed:
            failures[cutover] = failed
    return failures
