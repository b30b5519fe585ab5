"""Several containers that freeze and resume together: each has a session of its own, all have one decision.

They wait for each other twice: before the freeze in this process, and before the commit at the gateway. The gateway
moves all of their addresses in one write, once all are restored. If one fails, all are rolled back.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from sealift.attestation.attest import reach
from sealift.attestation.record import pinned
from sealift.errors import UnusableInput
from sealift.host import docker
from sealift.migration import steps
from sealift.migration.again import again_after_rollback
from sealift.migration.session import Session
from sealift.model import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.inventory import Inventory
    from sealift.migration.request import Request
    from sealift.model import Report

PROJECT_LABEL = "com.docker.compose.project"
"""The label by which Docker Compose marks a container with its project."""


def migrate(
    inventory: Inventory, requests: Sequence[Request], run: steps.Runner, retries: int = 0
) -> list[Report]:
    """Migrate one container, or several together. Returns a report for each.

    A cutover that was rolled back is tried again, at most `retries` times. UnusableInput if a container is named twice.
    Otherwise raises the errors of the steps, for all containers.
    """
    reports, rollbacks = again_after_rollback(lambda: _once(inventory, requests, run), retries)
    return [one.model_copy(update={"warnings": [*rollbacks, *one.warnings]}) for one in reports]


def _once(inventory: Inventory, requests: Sequence[Request], run: steps.Runner) -> list[Report]:
    with ExitStack() as stack:
        sessions = open_sessions(inventory, requests, stack)
        reports = steps.migrate(sessions, run)
    return [
        report.model_copy(update={"warnings": [*report.warnings, *session.closing.left]})
        for report, session in zip(reports, sessions, strict=True)
    ]


def open_sessions(inventory: Inventory, requests: Sequence[Request], stack: ExitStack) -> list[Session]:
    """Open a session for each request; `stack` closes them. The first waits for the turn of all."""
    names = [request.container for request in requests]
    if len(set(names)) < len(names) or not names:
        raise UnusableInput(
            f"a group of {', '.join(names) or 'no containers'}",
            step=Step.PREFLIGHT,
            remedy="Name each container once",
        )
    return [
        stack.enter_context(Session.open(inventory, request, waits=number == 0))
        for number, request in enumerate(requests)
    ]


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
