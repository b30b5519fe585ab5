"""The words of the protocol: who is spoken to, in which phase it is, and what was decided."""

from __future__ import annotations

from enum import Enum
from typing import Any

VERSION = 7
"""An agent says its own first of all. It changes whenever a field, an order or a meaning does."""

Json = dict[str, Any]
"""A description by Docker, passed on as it came."""


class Word(str, Enum):
    """A word of the protocol. As a text it is that word, in every Python."""

    def __str__(self) -> str:
        return str(self.value)


class Role(Word):
    """Which agent."""

    FACTS = "facts"
    SOURCE = "source"
    DESTINATION = "destination"
    GATEWAY = "gateway"


class Phase(Word):
    """How far an agent of a migration has come. An order that is not for this phase is refused."""

    NEW = "new"
    PREPARED = "prepared"
    OPENED = "opened"
    ARMED = "armed"
    CUTOVER = "cutover"
    CLOSED = "closed"


PHASES = {
    Phase.NEW: "the agent has just been started",
    Phase.PREPARED: "the destination listens for the source",
    Phase.OPENED: "both hosts are connected: files and memory are sent while the container runs",
    Phase.ARMED: "everything is ready for the freeze",
    Phase.CUTOVER: "the source has been told to begin: from here on the gateway decides",
    Phase.CLOSED: "the migration is forgotten",
}
"""What each of them means."""

NEW, PREPARED, OPENED, ARMED, CUTOVER, CLOSED = Phase


class Outcome(Word):
    """What was decided about a migration. UNDECIDED: the gateway has not told the host that is asked."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNDECIDED = "undecided"
