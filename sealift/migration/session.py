"""The session of one migration: it connects to source and gateway, and cleans up at its end.

The steps are in `sealift.migration.steps`. If a session ends before the commit, the source's container runs on. After
the commit the source's copy is removed, whatever the reason for the end was (`sealift.migration.closing`).
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from sealift.attestation.attest import keystore_of, reach
from sealift.attestation.record import pinned
from sealift.errors import SealiftError
from sealift.migration import kept_logs, progress
from sealift.migration.closing import Closing
from sealift.migration.journal import Journal
from sealift.migration.parties import Gateway, Parties, Party
from sealift.migration.recovery import end_unfinished
from sealift.migration.request import check_evidence, check_hosts
from sealift.migration.turn import wait_for_turn
from sealift_agent.protocol import Outcome, Undecided

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from sealift.attestation.keystore import Keystore
    from sealift.host import ssh
    from sealift.inventory import Inventory
    from sealift.migration.request import Request
    from sealift_agent.protocol import Happened


class Decision(Protocol):
    """The part of the cutover that a session uses."""

    def hear(self, happened: Happened) -> None:
        """An event of the source's agent."""

    def settle(self) -> Outcome | None:
        """Wait for the end. Returns the outcome, None if nobody could be asked."""


class Session:
    """Use as `with Session.open(…) as session`. `warnings` are for the report, in addition to the steps' own.

    `inventory` has the keys that hosts have proved so far. `decision` is set once a cutover has been made.
    """

    def __init__(
        self,
        inventory: Inventory,
        request: Request,
        stack: ExitStack,
        keystore: Keystore | None,
        *,
        waits: bool,
    ) -> None:
        self.inventory = pinned(inventory)
        self.request = request
        self.keystore = keystore or keystore_of(inventory)
        self.started_ns = time.monotonic_ns()
        self.warnings: list[str] = []
        self.decision: Decision | None = None
        self._arrived: ssh.Connection | None = None
        # A login and two interpreters take seconds if a VM is emulated. Meanwhile the destination is attested.
        pool = stack.enter_context(ThreadPoolExecutor(1))
        source = pool.submit(self._open_source)
        stack.callback(_close_opened, source)
        gateway = Gateway(inventory, stack)
        self.parties = Parties(gateway, source)
        stack.callback(self._close_destination)
        migration = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.journal = Journal(migration, gateway)
        self.closing = Closing(self.parties, self.journal)
        if waits and (waited := wait_for_turn(gateway, inventory, request)):
            self.warnings.append(waited)
        self.warnings += [ended.sentence() for ended in end_unfinished(inventory, gateway)]

    @classmethod
    @contextmanager
    def open(
        cls, inventory: Inventory, request: Request, keystore: Keystore | None = None, *, waits: bool = True
    ) -> Iterator[Session]:
        """Connect to the source and the gateway. `attest` connects to the destination.

        It `waits` until the inventory's limits allow one more migration, unless it belongs to a group that has waited.
        First, earlier unfinished migrations are ended. Refused if the destination can't be verified and this was not
        asked for by name; UnusableInput for hosts that are not in the inventory.
        """
        check_hosts(inventory, request)
        check_evidence(inventory, request)
        with ExitStack() as stack:
            session = cls(inventory, request, stack, keystore, waits=waits)
            try:
                yield session
            except SealiftError as failed:
                kept_logs.keep(session.parties, session.migration, failed)
                raise
            finally:
                session.put_away()

    @property
    def migration(self) -> str:
        """The migration's id, the same at the gateway and on both hosts."""
        return self.journal.migration

    def arrive(self, connection: ssh.Connection) -> None:
        """Take the connection over which the destination was attested. It replaces that of an earlier attempt."""
        if self._arrived is not None:
            self._arrived.close()
        self._arrived = connection

    def open_destination(self) -> None:
        """Start the agents of the attested destination, unless they run."""
        if self.parties.opened_destination is None and self._arrived is not None:
            name = self.request.destination
            self.parties.add_destination(Party.start(name, self._arrived, "destination", self._hear_doubt))

    def put_away(self) -> None:
        """End the migration on both hosts. A host that can't be told now ends it by itself."""
        progress.tell_leaving(self.request.container)
        self.closing.put_away(Outcome.ROLLED_BACK if self.decision is None else self.decision.settle())

    def _open_source(self) -> Party:
        name = self.request.source
        connection = reach(self.inventory, name, keystore=self.keystore)
        return Party.start(name, connection, "source", self._hear)

    def _close_destination(self) -> None:
        if (destination := self.parties.opened_destination) is not None:
            destination.opened.close()
        elif self._arrived is not None:
            self._arrived.close()

    def _hear(self, happened: Happened) -> None:
        if self.decision is not None:
            self.decision.hear(happened)

    def _hear_doubt(self, happened: Happened) -> None:
        """Of the destination's events only this one is used, since times come from the source alone."""
        if isinstance(happened.event, Undecided):
            self._hear(happened)


def _close_opened(source: Future[Party]) -> None:
    """End the agents of a host that was opened in the background, if it could be."""
    if source.exception() is None:
        source.result().opened.close()
