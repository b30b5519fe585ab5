"""The three parties of a migration in this process: agents that answer the protocol's orders as a test says."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import ExitStack
from datetime import UTC, datetime
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

from sealift.migration.journal import Journal
from sealift.migration.parties import Gateway, Parties, Party, Side
from sealift.migration.request import Request
from sealift.migration.results import Copy, Memory, Plan, Provisioned, Ready
from sealift.model import Choice, Step, StepRecord, Strategy
from sealift_agent.protocol import (
    ArmDestination,
    ArmSource,
    CallOff,
    CheckPeer,
    CloseDestination,
    CloseSource,
    Decide,
    DestinationDecided,
    End,
    Note,
    Order,
    Outcome,
    RemoveContainer,
    Removed,
    RestartPolicy,
    SourceDecided,
    StartPageServer,
)

POLICY = {"Name": "always", "MaximumRetryCount": 0}
PORT = 4711
USUAL: dict[type[Order[Any]], Any] = {
    ArmDestination: None,
    ArmSource: None,
    CallOff: Outcome.ROLLED_BACK,
    CheckPeer: None,
    CloseDestination: None,
    CloseSource: None,
    Decide: PORT,
    DestinationDecided: None,
    End: None,
    Note: None,
    RemoveContainer: Removed(0),
    RestartPolicy: POLICY,
    SourceDecided: None,
    StartPageServer: 5000,
}
"""What an agent answers where a test says nothing else. An exception is raised, a function called with the order."""


class AtHand:
    """An agent, or the gateway's: it keeps the orders that it has got."""

    def __init__(self, **answers: Any) -> None:
        self.orders: list[Order[Any]] = []
        self.answers = {**USUAL}
        self.given_up = False
        self.revived: list[tuple[str, str]] = []
        self.lost = False

    def answer(self, order: type[Order[Any]], what: Any) -> None:
        self.answers[order] = what

    def call(self, order: Order[Any], *, timeout_s: float = 0) -> Any:
        self.orders.append(order)
        answer = self.answers[type(order)]
        if isinstance(answer, BaseException):
            raise answer
        return answer(order) if callable(answer) else answer

    def give_up(self) -> None:
        self.given_up = True

    def revive(self, migration: str, address: str) -> None:
        self.revived.append((migration, address))

    def by_another(self, *orders: Order[Any]) -> None:
        for order in orders:
            self.call(order)

    def got(self, *kinds: type[Order[Any]]) -> list[Order[Any]]:
        return [order for order in self.orders if isinstance(order, kinds)]


class Three:
    """Source, destination and gateway, with a migration that is ready to be armed."""

    def __init__(self, container: str = "box", migration: str = "m1") -> None:
        self.source, self.destination, self.gateway = AtHand(), AtHand(), AtHand()
        opened: Future[Party] = Future()
        opened.set_result(_party("source", self.source))
        self.parties = Parties(cast("Gateway", self.gateway), opened)
        self.parties.add_destination(_party("destination", self.destination))
        self.journal = Journal(migration, cast("Gateway", self.gateway))
        self.journal.found("c0ffee", "10.0.0.9")
        self.journal.created("c0b1e5", {})
        self.request = Request(container, "source", "destination")
        self.ready = ready()


def ready() -> Ready:
    hosts = {
        "source": SimpleNamespace(wireguard_key="key of the source"),
        "destination": SimpleNamespace(wireguard_key="key of the destination"),
    }
    inventory = SimpleNamespace(
        host=hosts.__getitem__, gateway=SimpleNamespace(tunnel_address=IPv4Address("10.0.0.1"))
    )
    record = StepRecord(step=Step.PREFLIGHT, started=datetime.now(UTC), duration_ms=0)
    plan = Plan(
        container={"Id": "c0ffee", "Name": "/box"},
        address="10.0.0.9",
        memory_bytes=1,
        image_at_destination=True,
        choice=Choice(strategy=Strategy.STOP_AND_COPY, why=""),
        estimate=None,
        estimated_ns=0,
        cost_ms=150.0,
        lazy_restore=False,
        streams=1,
    )
    copy = Copy(record, "c0b1e5", (), None, 0, 0)
    return Ready((record,), Provisioned(record, cast("Any", inventory), None), plan, copy, Memory())


def _party(name: str, agent: AtHand) -> Party:
    return Party(Side(name, cast("Any", None), None, agent), agent, ExitStack())
