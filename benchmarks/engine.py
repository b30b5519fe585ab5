"""A migration without Prefect: the same steps in the same order as `flows.migrate`, called one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sealift import inventory as inventories
from sealift.migration import finish as ending
from sealift.migration import predump
from sealift.migration import sync as files
from sealift.migration.cutover import Cutover
from sealift.migration.preflight import preflight
from sealift.migration.session import Request, Session
from sealift.model import CUTOVER, Report, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sealift.inventory import Inventory
    from sealift_agent.protocol import Happened

    Hooks = Mapping[str, Callable[[Session], object]]


def migrate(inventory: Inventory, request: Request, hooks: Hooks | None = None) -> Report:
    """Migrate. Hooks are called when "armed", and with the source's events, by their names."""
    called = hooks or {}

    class Hooked(Cutover):
        def hear(self, happened: Happened) -> None:
            super().hear(happened)
            if happened.event.NAME in called:
                called[happened.event.NAME](session)

    with Session.open(inventory, request) as session:
        prepare(session)
        with session.step(Step.PRE_DUMP):
            predump.prepare(session)
        session.cutover = cutover = Hooked(session)
        cutover.arm()
        if "armed" in called:
            called["armed"](session)
        cutover.begin()
        for step in CUTOVER:
            cutover.wait(step)
        with session.step(Step.FINISH):
            ending.finish(session)
        return ending.report(session)


def alone(inventory: Path, **asked: Any) -> Report:
    """Migrate, called as the flow is: `asked` are fields of a `Request`."""
    return migrate(inventories.load(inventory), Request(**asked))


def prepare(session: Session) -> None:
    """All that comes before memory is looked at."""
    arrive(session)
    with session.step(Step.PREFLIGHT):
        preflight(session)
    with session.step(Step.SYNC):
        session.found.image_bytes = files.sync_image(session)
        files.open_doors(session, files.create_copy(session))
        session.found.file_bytes = files.live_pass(session)


def arrive(session: Session) -> None:
    """The steps before all others: the destination proves what it is and gets its keys."""
    with session.step(Step.ATTEST):
        session.attest()
    with session.step(Step.PROVISION_KEYS):
        session.provision()
