"""Orders to the agent of the gateway: addresses, decisions, and the journal of migrations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .order import Order, belongs_to
from .parts import Move, Noted, Record, Route, Unfinished
from .words import Outcome, Role


@belongs_to(Role.GATEWAY, "assign", Route, "the record; WireGuard's allowed addresses")
@dataclass(frozen=True)
class Assign(Order[Route]):
    """Give an address to a host outside of any migration. Answers the route."""

    address: str
    peer: str
    host: str


@belongs_to(Role.GATEWAY, "release", None, "the record; WireGuard's allowed addresses")
@dataclass(frozen=True)
class Release(Order[None]):
    """Take an address back."""

    address: str


@belongs_to(Role.GATEWAY, "adopt", None, "the record; WireGuard's peers")
@dataclass(frozen=True)
class AdoptKey(Order[None]):
    """A host has a new WireGuard key, which takes the place of the one before."""

    host: str
    peer: str
    tunnel: str
    endpoint: str


@belongs_to(Role.GATEWAY, "show", Record)
@dataclass(frozen=True)
class ShowRecord(Order[Record]):
    """The whole record."""


@belongs_to(Role.GATEWAY, "restore", dict[str, str], "WireGuard's peers and addresses")
@dataclass(frozen=True)
class CarryOut(Order[dict[str, str]]):
    """Have WireGuard do what is on record. Answers what it did not do: addresses, hosts, each with why."""


@belongs_to(Role.GATEWAY, "check_peer", None)
@dataclass(frozen=True)
class CheckPeer(Order[None]):
    """Refused where WireGuard has no such peer."""

    peer: str


@belongs_to(Role.GATEWAY, "decide", int, "listens for the hosts' questions; groups on record")
@dataclass(frozen=True)
class Decide(Order[int]):
    """Answer the two hosts of a migration. `members`: the migrations that are decided with it. Answers the port."""

    address: str
    token: str
    key: str
    move: Move
    members: Optional[list[str]] = None
    port: int = 0


@belongs_to(Role.GATEWAY, "call_off", Outcome, "the record, unless it is decided already")
@dataclass(frozen=True)
class CallOff(Order[Outcome]):
    """Decide against a migration that is not decided yet. Answers the outcome on record."""

    migration: str


@belongs_to(Role.GATEWAY, "end", None, "listens no more; holds no packets")
@dataclass(frozen=True)
class End(Order[None]):
    """No host asks any more."""


@belongs_to(Role.GATEWAY, "sweep", None, "holds no packets")
@dataclass(frozen=True)
class ReleaseHeld(Order[None]):
    """After an agent that was killed: packets for the address are held no more."""

    address: str


@belongs_to(Role.GATEWAY, "guarded", bool)
@dataclass(frozen=True)
class Guarded(Order[bool]):
    """Whether the rules of the firewall are loaded."""


@belongs_to(Role.GATEWAY, "enter", list[str], "takes places")
@dataclass(frozen=True)
class Enter(Order[list[str]]):
    """Take one place of each name, of as many as its limit says, or none. Answers the names that are full."""

    limits: dict[str, int]


@belongs_to(Role.GATEWAY, "note", None, "the journal")
@dataclass(frozen=True)
class Note(Order[None]):
    """Write a transition of a migration into the journal, with facts for who has to recover it."""

    migration: str
    phase: str
    facts: Noted = field(default_factory=Noted)


@belongs_to(Role.GATEWAY, "unfinished", list[Unfinished])
@dataclass(frozen=True)
class ListUnfinished(Order[list[Unfinished]]):
    """All migrations in the journal, oldest first, with all facts."""


@belongs_to(Role.GATEWAY, "take", bool, "whose the migration is")
@dataclass(frozen=True)
class TakeOver(Order[bool]):
    """Take over a migration whose controller has died; false while it lives."""

    migration: str
