"""Recovery: whatever died in a migration, the gateway's record tells how to end it, and any controller can.

The decision comes first: a migration that has not committed is called off, once and for all. Then each host is told:
before the commit the source goes on and the destination's copy goes; after it, the other way round. A host that does
not answer leaves the record open for the next time, and until then it can do no harm: its copy is frozen or cut off.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.attestation.rejoin import rejoin
from sealift.errors import SealiftError, UnusableInput
from sealift.host import ssh
from sealift.host.agents import Agent
from sealift.migration.endings import Traces, ending
from sealift.plain_text import one_line
from sealift_agent.protocol import CallOff, ListUnfinished, Note, ReleaseHeld, Role, TakeOver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sealift.host.agents import Caller
    from sealift.inventory import Inventory
    from sealift_agent.protocol import Unfinished

STEP = "recover"


@dataclass(frozen=True)
class Recovered:
    """One migration that was on record as not over. `left` names what still has to be done, and where."""

    migration: str
    container: str
    source: str
    destination: str
    outcome: str
    left: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """The host that has the container."""
        return self.destination if self.outcome == "committed" else self.source

    def sentence(self) -> str:
        """What was found and done, for a person."""
        what = one_line(f"migration {self.migration} of {self.container}")
        if self.outcome == "under way":
            return f"{what} is under way: somebody is at it right now"
        said = f"{what} had been left unfinished: {self.outcome}, the container belongs to {self.owner}"
        return one_line(f"{said}; still to be done: {'; '.join(self.left)}" if self.left else said)


def recover(inventory: Inventory, migration: str | None = None) -> list[Recovered]:
    """End every migration on the gateway's record that nobody is at any more, or the named one.

    Hosts that prove their keys, and have others since they were started again, get their tunnel back. UnusableInput if
    the named one is not on record. One that somebody runs at this moment is passed over; if it is
    the named one, its outcome is "under way".
    """
    with ssh.connected("gateway", inventory.gateway) as connection, Agent(connection, "gateway") as gateway:
        if migration is None:
            ended = end_unfinished(inventory, gateway)
            for host in inventory.hosts:
                with suppress(SealiftError):  # one that is away is no matter of a migration
                    rejoin(inventory, host, gateway).close()
            return ended
        records = [record for record in gateway.call(ListUnfinished()) if record.migration == migration]
        if not records:
            raise UnusableInput(
                f"the gateway has no unfinished migration {migration!r}",
                step=STEP,
                remedy="`sealift recover` without a name shows and ends all that there are",
            )
        return [_end(inventory, gateway, record) or _recovered(record, "under way") for record in records]


def end_unfinished(inventory: Inventory, gateway: Caller) -> list[Recovered]:
    """End every migration on the record of this gateway that nobody is at any more."""
    records = gateway.call(ListUnfinished())
    return [ended for record in records if (ended := _end(inventory, gateway, record)) is not None]


def _end(inventory: Inventory, gateway: Caller, record: Unfinished) -> Recovered | None:
    """End one; None while somebody is at it."""
    if record.held or not gateway.call(TakeOver(record.migration)):
        return None
    outcome, traces = gateway.call(CallOff(record.migration)), Traces.of_record(record)
    gateway.call(ReleaseHeld(record.address))
    left = []
    for host, role in ((record.source, Role.SOURCE), (record.destination, Role.DESTINATION)):
        try:
            if (order := ending(role, outcome, traces)) is None:
                continue
            with rejoin(inventory, host, gateway) as connection, Agent(connection, role) as agent:
                agent.call(order)
        except SealiftError as failed:
            left.append(str(failed))
    if not left:
        gateway.call(Note(record.migration, "closed"))
    return _recovered(record, outcome.value, left)


def _recovered(record: Unfinished, outcome: str, left: Iterable[str] = ()) -> Recovered:
    return Recovered(
        record.migration, record.name, record.source, record.destination, outcome, left=tuple(left)
    )
