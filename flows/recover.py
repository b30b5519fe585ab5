"""End the migrations that were left unfinished: run by a schedule, and by a migration's own hooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.admission import InventoryFile, admit
from sealift.errors import SealiftError
from sealift.migration import recovery
from sealift.plain_text import in_markdown

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State


@flow(name="recover")
def recover(
    inventory: InventoryFile = None,
    migration: Annotated[str | None, Field(description="One migration by its id. Default: all.")] = None,
) -> list[str]:
    """End every migration on the gateway's record that nobody is at any more.

    Returns a sentence for each. What a host could not be told is in it, and stays on record for the next run.
    """
    ended = recovery.recover(admit(inventory), migration)
    if ended:
        rows = [
            {
                "migration": in_markdown(one.migration),
                "container": in_markdown(one.container),
                "owner": one.owner,
            }
            for one in ended
        ]
        create_table_artifact(table=rows, key="recovered", description="Migrations that were left unfinished")
    return [one.sentence() for one in ended]


def end_what_was_left(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's signature
    """Hook of a migration that crashed or was cancelled. A host that is away is left to the next run."""
    chosen = flow_run.parameters.get("inventory")
    try:
        # It runs in the worker itself, and what it is given came through the API.
        by_worker = flow_run.deployment_id is not None
        recovery.recover(admit(Path(chosen) if chosen else None, by_worker=by_worker))
    except SealiftError as silent:
        print(f"not recovered yet: {silent}")  # noqa: T201 - the only log that a hook has
