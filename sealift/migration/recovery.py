"""Recovery: the gateway's record tells how to end a migration after a failure, and any controller can do so.

The decision comes first: a migration that has not committed is called off, finally. Then each host is told. Before the
commit, the source runs on and the destination's copy is removed; after it, the other way round. If a host does not
answer, the record stays open for the next time. Until then its copy is frozen or detached, so it can do no harm.
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
    """One recorded migration that was not over. `left` names what still has to be done, and where."""

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
            return f"{what} is running: a controller works on it now"
        said = f"{what} was unfinished: {self.outcome}, the container belongs to {self.owner}"
        return one_line(f"{said}; still to be done: {'; '.join(self.left)}" if self.left else said)


def recover(inventory: Inventory, migration: str | None = None) -> list[Recovered]:
    """End every recorded migration that no controller works on, or the named one.

    Hosts that prove their keys, and have new ones since they were started again, get their tunnel back. UnusableInput
    if the named one is not recorded. A migration that a controller works on is left out; if it is the named one, its
    outcome is "under way".
    """
    with ssh.connected("gateway", inventory.gateway) as connection, Agent(connection, "gateway") as gateway:
        if migration is None:
            ended = end_unfinished(inventory, gateway)
            for host in inventory.hosts:
                with suppress(SealiftError):  # a host that does not answer does not matter to a migration
                    rejoin(inventory, host, gateway).close()
            return ended
        records = [record for record in gateway.call(ListUnfinished()) if record.migration == migration]
        if not records:
            raise UnusableInput(
                f"the gateway has no unfinished migration {migration!r}",
                step=STEP,
                remedy="`sealift recover` without a name shows and ends all of them",
            )
        return [_end(inventory, gateway, record) or _recovered(record, "under way") for record in records]


def end_unfinished(inventory: Inventory, gateway: Caller) -> list[Recovered]:
    """End every migration on this gateway's record that no controller works on."""
    records = gateway.call(ListUnfinished())
    return [ended for record in records if (ended := _end(inventory, gateway, record)) is not None]


def _end(inventory: Inventory, gateway: Caller, record: Unfinished) -> Recovered | None:
    """End one; None if a controller works on it."""
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
