"""The three parties of a migration, connected: the source, the destination and the gateway."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sealift.errors import UnusableInput
from sealift.host import docker, ssh
from sealift.host.agents import ORDER_TIMEOUT_S, Agent
from sealift_agent.protocol import ReleaseHeld, TakeOver

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from sealift.host.agents import Caller, HostAgent
    from sealift.inventory import Inventory
    from sealift_agent.protocol import Answer, Happened, Order

    Listen = Callable[[Happened], None]


@dataclass(frozen=True)
class Side:
    """One of the two Docker hosts, connected: its Docker, and an agent that only answers questions (`facts`)."""

    name: str
    connection: ssh.Connection
    docker: Any
    facts: Caller


@dataclass(frozen=True)
class Party:
    """A Docker host in its role in this migration. `agent` carries out the orders; `opened` closes all of it."""

    side: Side
    agent: HostAgent
    opened: ExitStack

    @classmethod
    def start(cls, name: str, connection: ssh.Connection, role: str, listen: Listen) -> Party:
        """Start the agents of a host. `listen` gets the events of the one in that role.

        The connection belongs to the party from now on, and is closed with it.
        """
        with ExitStack() as stack:
            stack.enter_context(connection)
            api = docker.client(connection)
            stack.callback(api.close)
            facts = stack.enter_context(Agent(connection, "facts"))
            agent = stack.enter_context(Agent(connection, role, listen))
            return cls(Side(name, connection, api, facts), agent, stack.pop_all())


class Gateway:
    """The gateway's agent, which decides. One that has died is replaced: see `revive`."""

    def __init__(self, inventory: Inventory, stack: ExitStack) -> None:
        self._machine = inventory.gateway
        self._stack = stack
        self._connection = stack.enter_context(ssh.connected("gateway", self._machine))
        self._agent = stack.enter_context(Agent(self._connection, "gateway"))

    def call(self, order: Order[Answer], *, timeout_s: float = ORDER_TIMEOUT_S) -> Answer:
        """Give the gateway's agent an order. See `Agent.call`."""
        return self._agent.call(order, timeout_s=timeout_s)

    @property
    def lost(self) -> bool:
        """Whether its agent has ended without an order to end."""
        return self._agent.lost

    def revive(self, migration: str, address: str) -> None:
        """Replace an agent that has died. The decision is on the gateway's disk."""
        self._agent.close()
        if not self._connection.is_alive():  # the whole machine was lost
            self._connection = self._stack.enter_context(ssh.connected("gateway", self._machine))
        self._agent = self._stack.enter_context(Agent(self._connection, "gateway"))
        self._agent.call(TakeOver(migration))
        self._agent.call(ReleaseHeld(address))

    def by_another(self, *orders: Order[Any]) -> None:
        """Let a new agent carry out these orders, if this one is lost."""
        with Agent(self._connection, "gateway") as agent:
            for order in orders:
                agent.call(order)


class Parties:
    """The three parties. The source is opened in the background. The destination is added when it has been attested."""

    def __init__(self, gateway: Gateway, source: Future[Party]) -> None:
        self.gateway = gateway
        self._source = source
        self._destination: Party | None = None

    @property
    def source(self) -> Party:
        """The source. HostUnreachable if it could not be opened."""
        return self._source.result()

    @property
    def destination(self) -> Party:
        """The destination. UnusableInput before it has been attested and provisioned."""
        if self._destination is None:
            raise UnusableInput("the destination was not attested", remedy="Attest and provision it first")
        return self._destination

    @property
    def opened_source(self) -> Party | None:
        """The source, if it could be opened."""
        return self._source.result() if self._source.exception() is None else None

    @property
    def opened_destination(self) -> Party | None:
        """The destination, if it has been added."""
        return self._destination

    def add_destination(self, destination: Party) -> None:
        """The destination has been attested and provisioned."""
        self._destination = destination
