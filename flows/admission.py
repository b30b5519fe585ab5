"""What a run may do that Prefect's API has started: who has the API's password is not at a command line here.

A worker of migrations is root on the machine that it runs on. So it takes inventories of one folder only, it asks for
evidence where they do not say otherwise, and it runs nothing for an API that answers everybody.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from sealift import inventory as inventories
from sealift.errors import Refused

if TYPE_CHECKING:
    from sealift.inventory import Inventory

InventoryFile = Annotated[
    Path | None,
    Field(
        description="The inventory file. A worker takes one of /etc/sealift. Default: sealift.toml, or the lab's."
    ),
]
"""A flow's parameter."""

STEP = "admission"
RUN = "PREFECT__FLOW_RUN_ID"
"""In the environment of a process that a worker has started for a run (prefect/runner)."""

ASKED = "/admin/version"
"""The API says its version only to who is let in; `/health` it says to everybody."""

ANSWER_TIMEOUT_S = 10


def admit(
    chosen: Path | None,
    destination: str | None = None,
    evidence: str | None = None,
    *,
    by_worker: bool | None = None,
) -> Inventory:
    """The inventory for a run, if it may have that one, and go without evidence where it asks for that.

    Outside of a worker a person has chosen both. Refused names what a worker's run may not have.
    """
    if not (_is_started_by_api() if by_worker is None else by_worker):
        return inventories.load(chosen)
    _demand_password()
    known = inventories.load(inventories.find_for_worker(chosen))
    if evidence == "none" and destination not in known.worker.without_evidence:
        raise Refused(
            "a run that was started through Prefect's API may not ask for evidence none",
            host=destination,
            step=STEP,
            remedy="Ask for it on a command line, or name the host in the inventory: without_evidence of the table "
            "`worker`",
        )
    return known


def admit_without_inventory() -> None:
    """The same for a run that brings up a lab of its own. Refused where the API lets in whoever asks."""
    if _is_started_by_api():
        _demand_password()


def _is_started_by_api() -> bool:
    """Whether a worker has started this very run, with parameters that the API was given.

    A run inside of it has its parameters from the outer one's code: a sweep's migrations, say, from the sweep.
    """
    if RUN not in os.environ:
        return False
    context = FlowRunContext.get()
    return context is None or context.flow_run is None or str(context.flow_run.id) == os.environ[RUN]


def _demand_password() -> None:
    """Refused where the API lets in whoever asks. One that does not answer now is no matter of this."""
    try:
        answer = httpx.get(f"{PREFECT_API_URL.value()}{ASKED}", timeout=ANSWER_TIMEOUT_S)
    except httpx.HTTPError:
        return
    if answer.is_success:
        raise Refused(
            "Prefect's API asks for no password: any user of this machine could have started this run, which is root",
            step=STEP,
            remedy="Start server and worker by `deployments/start`, or set PREFECT_SERVER_API_AUTH_STRING for the "
            "server and PREFECT_API_AUTH_STRING for the worker",
        )
