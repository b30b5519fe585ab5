"""When a failed step is worth another try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sealift.errors import HostUnreachable

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun


def if_unreachable(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Only a host that did not answer may answer the next time; a refusal stays one."""
    try:
        state.result()
    except HostUnreachable:
        return True
    except Exception:  # noqa: BLE001 - whatever else it was, trying again does not mend it
        return False
    return False
