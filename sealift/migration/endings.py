"""What each host is told when a migration ends without its agent: one table, for a session and for recovery.

| outcome     | source                      | destination                                                       |
|-------------|-----------------------------|-------------------------------------------------------------------|
| committed   | `Discard`: its copy goes    | `Complete`: the container is reached there                        |
| rolled back | `Resume`: it goes on        | `SweepCopy`: the copy goes; `SweepUnnamed` where its id is unknown |

A source whose container was not found yet is told nothing. A commit of which no copy is known is an error, so that
nothing is removed for it. A session knows what it has done; recovery has it from the journal (`Traces.of_record`):
both make the same orders of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sealift.errors import UnusableInput
from sealift_agent.constants import BRIDGE
from sealift_agent.protocol import Complete, Discard, Outcome, Resume, Role, SweepCopy, SweepUnnamed

if TYPE_CHECKING:
    from sealift_agent.protocol import Json, Order, Unfinished


@dataclass(frozen=True)
class Made:
    """What is being made at the destination, and has no id yet: a container of that name and image, and volumes."""

    name: str
    image: str
    volumes: list[str]


@dataclass(frozen=True)
class Traces:
    """What a migration has left on its hosts so far.

    `container` is the source's; `copy` the destination's, with the `volumes` that were made for it (names, and when
    Docker made them). `made` is what `copy` is not on record for. `restart_policy`: from the arming on.
    """

    migration: str
    container: str | None = None
    address: str = ""
    copy: str | None = None
    volumes: dict[str, str] = field(default_factory=dict)
    made: Made | None = None
    restart_policy: Json | None = None

    @classmethod
    def of_record(cls, record: Unfinished) -> Traces:
        """What the gateway's journal says of a migration."""
        return cls(
            migration=record.migration,
            container=record.container,
            address=record.address,
            copy=record.copy,
            volumes=record.volumes,
            made=Made(record.name, record.image, record.missing),
            restart_policy=record.restart_policy,
        )


def ending(role: Role, outcome: Outcome, traces: Traces) -> Order[Any] | None:
    """The order for a new agent of that host; None if there is nothing to do. `outcome` is the decision.

    UnusableInput for a commit without a recorded copy.
    """
    if outcome is Outcome.COMMITTED and traces.copy is None:
        raise UnusableInput(
            f"migration {traces.migration} has committed, and no container is on record as its copy",
            remedy="Look for the container on both hosts: nothing of it was removed",
        )
    return (_of_source if role is Role.SOURCE else _of_destination)(outcome, traces)


def _of_source(outcome: Outcome, traces: Traces) -> Order[Any] | None:
    if traces.container is None:
        return None
    if outcome is Outcome.COMMITTED:
        return Discard(traces.migration, traces.container)
    return Resume(traces.migration, traces.container, traces.address, BRIDGE, traces.restart_policy)


def _of_destination(outcome: Outcome, traces: Traces) -> Order[Any]:
    if traces.copy is None and traces.made is not None:
        return SweepUnnamed(traces.migration, traces.made.name, traces.made.image, traces.made.volumes)
    if outcome is Outcome.COMMITTED:
        return Complete(traces.migration, traces.copy or "", traces.address, BRIDGE, traces.restart_policy)
    return SweepCopy(traces.migration, traces.copy or "", traces.volumes)
