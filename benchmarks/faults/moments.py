"""The moments at which a migration is held, so that something can be broken at exactly that time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sealift.errors import UnusableInput
from sealift.model import Step

Part = Literal["start", "middle", "end"]
Where = Literal["controller", "source", "destination", "gateway"]

HELD_AT = "SEALIFT_HELD_AT"
"""A variable in the environment of a worker's flow run: the name of the moment at which it is held."""


@dataclass(frozen=True)
class Moment:
    """One moment: its part of a step, and the program that is held.

    The controller is held before it gives the `order`, written ROLE ORDER, or when it begins the step. An agent is held
    at the point of `sealift_agent.points` that has this moment's name.
    """

    name: str
    step: Step
    part: Part
    where: Where = "controller"
    order: str | None = None
    armed: bool = False
    """Whether runc and CRIU wait or work at both hosts."""


MOMENTS = (
    Moment("attest", Step.ATTEST, "start"),
    Moment("provision", Step.PROVISION_KEYS, "start"),
    Moment("provided", Step.PROVISION_KEYS, "middle", order="gateway adopt"),
    Moment("preflight", Step.PREFLIGHT, "start", order="facts host"),
    Moment("looking", Step.PREFLIGHT, "middle", order="gateway show"),
    Moment("sync", Step.SYNC, "start"),
    Moment("opened", Step.SYNC, "middle", order="destination adopt"),
    Moment("created", Step.SYNC, "middle", order="gateway note copied"),
    Moment("copied", Step.SYNC, "middle", order="source live_pass"),
    Moment("pre-dump", Step.PRE_DUMP, "start"),
    Moment("arming", Step.FINAL_DUMP, "start", order="source arm"),
    Moment("armed", Step.FINAL_DUMP, "start", order="source go", armed=True),
    Moment("frozen", Step.FINAL_DUMP, "middle", "source", armed=True),
    Moment("dumped", Step.FINAL_DUMP, "end", "source", armed=True),
    Moment("sent", Step.TRANSFER, "middle", "destination", armed=True),
    Moment("received", Step.RESTORE, "start", "destination", armed=True),
    Moment("restoring", Step.RESTORE, "middle", "destination", armed=True),
    Moment("restored", Step.RESTORE, "end", "destination", armed=True),
    Moment("decided", Step.NETWORK_SWITCH, "middle", "gateway"),
    Moment("committed", Step.NETWORK_SWITCH, "end", "destination"),
    Moment("finish", Step.FINISH, "start", order="source remove_container"),
    Moment("removed", Step.FINISH, "middle", order="destination finish"),
    Moment("finished", Step.FINISH, "end", order="source close"),
)
"""In their order. The end of a step is the start of the next. `provided`: the destination has its keys, and the
other hosts do not know them yet. `opened` and `copied`: that phase is in the journal. `created`: the
destination's container exists, but its id is not recorded. `restoring`: runc has been started. `decided`: the
decision is on the gateway's disk, and nobody has been told."""

NAMES = tuple(moment.name for moment in MOMENTS)


def moment(name: str) -> Moment:
    """The moment of that name. UnusableInput for an unknown one."""
    for each in MOMENTS:
        if each.name == name:
            return each
    raise UnusableInput(f"there is no moment {name!r}", remedy=f"Take one of: {', '.join(NAMES)}")
