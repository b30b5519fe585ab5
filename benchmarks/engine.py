"""A migration without Prefect: the same steps in the same order as in the flow, run one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift import inventory as inventories
from sealift.migration import progress, steps
from sealift.migration.request import DEFAULTS, Options, Request
from sealift.migration.results import Memory, Ready
from sealift.migration.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sealift.inventory import Inventory
    from sealift.migration.cutover import Cutover
    from sealift.migration.results import Moved, Provisioned
    from sealift.model import Report

    Hooks = Mapping[str, Callable[[Session], object]]


class Hooked(steps.InTurn, progress.Listener):
    """Calls hooks when "armed", and with the source's events, by their names."""

    def __init__(self, session: Session, hooks: Hooks) -> None:
        self._session = session
        self._hooks = hooks

    def cut_over(self, cutovers: Sequence[Cutover]) -> list[Moved]:
        """See `steps.Runner`."""
        for cutover in cutovers:
            cutover.arm()
            self._call("armed")
        return super().cut_over(cutovers)

    def heard(self, container: str, event: str) -> None:
        """See `progress.Listener`."""
        if container == self._session.request.container:
            self._call(event)

    def _call(self, name: str) -> None:
        if name in self._hooks:
            self._hooks[name](self._session)


def migrate(inventory: Inventory, request: Request, hooks: Hooks | None = None) -> Report:
    """Migrate. Hooks: see `Hooked`."""
    with Session.open(inventory, request) as session:
        hooked = Hooked(session, hooks or {})
        with progress.listening(hooked):
            return steps.migrate([session], hooked)[0]


def alone(
    container: str, source: str, destination: str, options: Options = DEFAULTS, inventory: Path | None = None
) -> Report:
    """Migrate, called as the flow is."""
    return migrate(inventories.load(inventory), Request(container, source, destination, options))


def prepare(session: Session) -> Ready:
    """All that comes before memory is sent."""
    attested = steps.attest(session)
    destination = steps.provision_keys(session, attested)
    planned = steps.preflight(session, destination)
    copy = steps.sync(session, destination, planned.plan)
    records = (attested.step, destination.step, planned.step, copy.step)
    return Ready(records, destination, planned.plan, copy, Memory())


def arrive(session: Session) -> Provisioned:
    """The steps before all others: the destination proves what it is and gets its keys."""
    return steps.provision_keys(session, steps.attest(session))
