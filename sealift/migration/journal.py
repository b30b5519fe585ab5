"""Write a migration's phases into the gateway's journal, each before its actions.

The same facts are kept here as `Traces`, so that a session which ends early knows what it has left on the hosts.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sealift.migration.endings import Traces
from sealift_agent.protocol import Note, Noted, TakeOver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.migration.endings import Made
    from sealift.migration.parties import Gateway


class Journal:
    """The record of one migration: none, opened, copied, armed, and closed when nothing is left of it.

    `traces` is what the migration has left on its hosts so far.
    """

    def __init__(self, migration: str, gateway: Gateway) -> None:
        self.migration = migration
        self.traces = Traces(migration)
        self._gateway = gateway
        self._noted = False

    def found(self, container: str, address: str) -> None:
        """Note that the container was found at the source. Nothing has been written yet."""
        self.traces = replace(self.traces, container=container, address=address)

    def note_opened(self, source: str, destination: str, made: Made) -> None:
        """From now on the destination may have something of this migration: what is `made` there."""
        facts = Noted(
            source=source,
            destination=destination,
            address=self.traces.address,
            container=self.traces.container,
            name=made.name,
            image=made.image,
            missing=made.volumes,
        )
        self._note("opened", facts)

    @contextmanager
    def making(self, made: Made) -> Iterator[None]:
        """For an interruption of this block: what was created and has no id yet can be found by the facts of `made`."""
        self.traces = replace(self.traces, made=made)
        yield
        self.made_nothing_else()

    def made_nothing_else(self) -> None:
        """Everything of the migration at the destination now has a known id, or belongs to somebody else."""
        self.traces = replace(self.traces, made=None)

    def created(self, copy: str | None, volumes: dict[str, str]) -> None:
        """The destination has these volumes (names, and Docker's times of creation), and then this container's id."""
        self.traces = replace(self.traces, copy=copy, volumes=dict(volumes))

    def note_copied(self) -> None:
        """Write that the destination's container exists, with its id."""
        self._note("copied", Noted(copy=self.traces.copy, volumes=self.traces.volumes))

    def note_armed(self, restart_policy: dict[str, Any] | None) -> None:
        """Write the restart policy before it is suspended, so that it can be set again."""
        self.traces = replace(self.traces, restart_policy=restart_policy)
        self._note("armed", Noted(restart_policy=restart_policy))

    def close(self) -> None:
        """Remove the record, since nothing is left of the migration. Uses a new agent if the gateway's is lost."""
        if not self._noted:
            return
        closed = Note(self.migration, "closed")
        if self._gateway.lost:
            self._gateway.by_another(TakeOver(self.migration), closed)
        else:
            self._gateway.call(closed)

    def _note(self, phase: str, facts: Noted) -> None:
        self._gateway.call(Note(self.migration, phase, facts))
        self._noted = True
