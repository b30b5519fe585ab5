"""Several containers that freeze and resume together: each has a session of its own, all have one decision.

They wait for each other twice: before the freeze here, and before the commit at the gateway, which moves all of their
addresses in one write once every one of them is restored. What one of them fails in, all of them are rolled back from.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from sealift.attestation.attest import reach
from sealift.attestation.record import pinned
from sealift.errors import SealiftError, UnusableInput
from sealift.host import docker
from sealift.migration.cutover import Cutover
from sealift.migration.session import Session
from sealift.model import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sealift.inventory import Inventory
    from sealift.migration.request import Request

PROJECT_LABEL = "com.docker.compose.project"
"""What Docker Compose writes on a container: the project that it belongs to."""


class Group:
    """Use as `with Group.open(…) as group`; `cutovers` once every session is ready for its own."""

    def __init__(self, sessions: list[Session]) -> None:
        self.sessions = sessions

    @classmethod
    @contextmanager
    def open(cls, inventory: Inventory, requests: Sequence[Request]) -> Iterator[Group]:
        """Open a session for each. UnusableInput if one is named twice."""
        names = [request.container for request in requests]
        if len(set(names)) < len(names) or not names:
            raise UnusableInput(
                f"a group of {', '.join(names) or 'no containers'}",
                step=Step.PREFLIGHT,
                remedy="Name each container once",
            )
        with ExitStack() as stack:
            sessions = [
                stack.enter_context(Session.open(inventory, request, waits=number == 0))
                for number, request in enumerate(requests)
            ]
            yield cls(sessions)

    def cutovers(self) -> list[Cutover]:
        """A cutover for each of them, still to be armed. UnusableInput if two names are the same container."""
        ids = [session.found.container["Id"] for session in self.sessions]
        if len(set(ids)) < len(ids):
            raise UnusableInput("two of the names are the same container", remedy="Name each container once")
        members = {session.migration: session.request.container for session in self.sessions}
        together = threading.Barrier(len(members))
        made = [Cutover(session, members, together) for session in self.sessions]
        for session, cutover in zip(self.sessions, made, strict=True):
            session.cutover = cutover
        return made

    def first_failure(self, failures: dict[int, SealiftError]) -> SealiftError:
        """Of the failures, by the numbers of their sessions, the one that the others followed from."""

        def when(number: int) -> float:
            cutover = self.sessions[number].cutover
            failed = cutover.failed_ns if cutover is not None else None
            return float("inf") if failed is None else failed

        return failures[min(failures, key=when)]


def of_project(inventory: Inventory, source: str, project: str) -> list[str]:
    """The names of a Compose project's running containers on a host, in their order. UnusableInput if there is none."""
    with reach(pinned(inventory), source) as connection:
        api = docker.client(connection)
        try:
            found = api.containers(filters={"label": f"{PROJECT_LABEL}={project}"})
        finally:
            api.close()
    if not found:
        raise UnusableInput(
            f"no container of a Compose project {project!r} runs there",
            host=source,
            step=Step.PREFLIGHT,
            remedy="`docker compose ls` on that host shows the projects",
        )
    return sorted(str(container["Names"][0]).lstrip("/") for container in found)
