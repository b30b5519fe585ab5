"""The session of one migration: connections, agents and what the steps have found out, held together.

Leaving it puts everything away. Before the commit that means: the source goes on. After it: the source's copy is
removed, whatever the reason for leaving was.
"""

from __future__ import annotations

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sealift.errors import HostUnreachable, SealiftError, UnusableInput
from sealift.host import docker, ssh
from sealift.host.agents import Agent
from sealift.migration import progress
from sealift.migration.recovery import recover
from sealift.model import Choice, Round, Step, StepRecord, Strategy
from sealift.network.wireguard import BRIDGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.inventory import Inventory
    from sealift.migration.cutover import Cutover


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    container: str
    source: str
    destination: str
    strategy: Strategy = Strategy.AUTO
    max_rounds: int = 5


@dataclass(frozen=True)
class Side:
    """One of the two Docker hosts, connected."""

    name: str
    connection: ssh.Connection
    docker: Any
    facts: Agent


@dataclass
class Found:
    """What the steps have found out so far. Each attribute is set by the step that its comment names."""

    container: dict[str, Any] = field(default_factory=dict)  # preflight: Docker's description of it
    address: str = ""  # preflight
    memory_bytes: int = 0  # preflight
    image_at_destination: bool = False  # preflight
    warnings: list[str] = field(default_factory=list)  # preflight
    choice: Choice = field(
        default_factory=lambda: Choice(strategy=Strategy.STOP_AND_COPY, why="")
    )  # preflight
    copy: str = ""  # sync: id of the destination's container
    volumes: dict[str, str] = field(default_factory=dict)  # sync: those that were made for it, and when
    log: str | None = None  # sync: where the destination keeps what the container prints
    log_marked: int = 0  # sync: how much of it is there before the freeze, in bytes
    image_bytes: int = 0  # sync
    file_bytes: int = 0  # sync, transfer
    rounds: list[Round] = field(default_factory=list)  # pre-dump
    last_images: str | None = None  # pre-dump


class Session:
    """Use as `with Session.open(…) as session`."""

    def __init__(self, inventory: Inventory, request: Request, stack: ExitStack) -> None:
        self.inventory = inventory
        self.request = request
        self.migration = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.started_ns = time.monotonic_ns()
        self.found = Found()
        self.records: list[StepRecord] = []
        self.cutover: Cutover | None = None
        self.finished = False
        self.noted = False
        self.unsettled = False
        self._lock = threading.Lock()
        self._stack = stack
        with ThreadPoolExecutor(
            2
        ) as pool:  # a login and two interpreters each: seconds where a VM is emulated
            opening = [
                pool.submit(_open_side, request.source, inventory, "source", self._on_event),
                pool.submit(_open_side, request.destination, inventory, "destination", self._on_doubt),
            ]
        for side in opening:
            if side.exception() is None:
                stack.callback(side.result()[2].close)
        self.source, self.sender, _ = opening[0].result()
        self.destination, self.receiver, _ = opening[1].result()
        self.gateway_connection = stack.enter_context(ssh.connected("gateway", inventory.gateway))
        self.gateway = stack.enter_context(Agent(self.gateway_connection, "gateway"))

    @classmethod
    @contextmanager
    def open(cls, inventory: Inventory, request: Request) -> Iterator[Session]:
        """Connect to all hosts. HostUnreachable names the one that is not there.

        What earlier migrations have left behind is put right first.
        """
        inventory.host(request.source)
        inventory.host(request.destination)
        if request.source == request.destination:
            raise UnusableInput(
                f"source and destination are both {request.source!r}",
                step=Step.PREFLIGHT,
                remedy="Name two different hosts",
            )
        ended = recover(inventory)
        with ExitStack() as stack:
            session = cls(inventory, request, stack)
            session.found.warnings += [one.sentence() for one in ended]
            try:
                yield session
            finally:
                session.put_away()

    def note(self, phase: str, **facts: Any) -> None:
        """Write a transition into the journal at the gateway, before what it announces is done."""
        self.gateway.call("note", migration=self.migration, phase=phase, **facts)
        self.noted = True

    def put_away(self) -> None:
        """See to the end of both sides; what a host can't be told now is for it to see by itself."""
        committed = self.cutover is not None and self.cutover.settle() == "committed"
        if committed and not self.finished:
            self.remove_source()
        for agent, sweep in ((self.sender, self._sweep_source), (self.receiver, self._sweep_destination)):
            try:
                agent.call("close")
            except SealiftError as silent:
                self._left(silent)
                sweep(committed=committed)
        with suppress(SealiftError):  # with the agent ends what it holds
            self.gateway.call("end")
        self._sweep_gateway()
        self._close_journal()

    def _left(self, why: SealiftError) -> None:
        self.found.warnings.append(f"not put away: {why}")

    def _close_journal(self) -> None:
        """The record goes when nothing is left of the migration; else `recover` goes on from it."""
        if not self.noted or self.unsettled:
            return
        try:
            if self.gateway.lost:
                with Agent(self.gateway_connection, "gateway") as agent:
                    agent.call("take", migration=self.migration)
                    agent.call("note", migration=self.migration, phase="closed")
            else:
                self.gateway.call("note", migration=self.migration, phase="closed")
        except SealiftError as silent:
            self._left(silent)

    def remove_source(self) -> None:
        """After the commit: the source's copy goes, by its agent or, where that was killed, by another."""
        self.finished = True
        try:
            self.sender.call("remove_container")
        except HostUnreachable:
            with self._broom(self.source.connection, "source") as agent:
                agent.call("discard", migration=self.migration, container=self.found.container["Id"])

    def revive_gateway(self) -> None:
        """Put a new agent in the place of the gateway's, which has died: the decision is on the gateway's disk."""
        self.gateway.close()
        self.gateway = self._stack.enter_context(Agent(self.gateway_connection, "gateway"))
        self.gateway.call("take", migration=self.migration)
        self.gateway.call("sweep", address=self.found.address)

    def _sweep_source(self, *, committed: bool) -> None:
        container = self.found.container.get("Id")
        if container is None or committed:  # after the commit `remove_source` has seen to it
            return
        with self._broom(self.source.connection, "source") as agent:
            agent.call(
                "resume",
                migration=self.migration,
                container=container,
                address=self.found.address,
                bridge=BRIDGE,
            )

    def _sweep_destination(self, *, committed: bool) -> None:
        names: dict[str, Any] = {"migration": self.migration, "container": self.found.copy}
        with self._broom(self.destination.connection, "destination") as agent:
            if committed:
                agent.call("complete", **names, address=self.found.address, bridge=BRIDGE)
            else:
                agent.call("sweep", **names, volumes=self.found.volumes)

    def _sweep_gateway(self) -> None:
        if self.gateway.lost and self.found.address:
            with self._broom(self.gateway_connection, "gateway") as agent:
                agent.call("sweep", address=self.found.address)

    @contextmanager
    def _broom(self, connection: ssh.Connection, role: str) -> Iterator[Agent]:
        """A fresh agent where one was lost. A host that has gone with it is left to `recover`."""
        try:
            with Agent(connection, role) as agent:
                yield agent
        except SealiftError as silent:
            self.unsettled = True
            self._left(silent)

    @contextmanager
    def step(self, step: Step) -> Iterator[dict[str, Any]]:
        """Record a step's time. The block may set `sent_bytes` and `note`; errors get the step's name."""
        facts: dict[str, Any] = {}
        progress.tell_began(step)
        started, started_ns = datetime.now(UTC), time.monotonic_ns()
        try:
            yield facts
        except SealiftError as error:
            error.step = error.step or step
            raise
        took_ms = (time.monotonic_ns() - started_ns) / 1e6
        self.record(StepRecord(step=step, started=started, duration_ms=took_ms, **facts))

    def record(self, record: StepRecord) -> None:
        """Keep the record of a step; a retried step keeps its last."""
        with self._lock:
            self.records = [kept for kept in self.records if kept.step != record.step]
            self.records.append(record)
        progress.tell_ended(record)

    def recorded(self, step: Step) -> StepRecord:
        """The record of a step that has ended."""
        return next(record for record in self.records if record.step == step)

    def _on_event(self, event: dict[str, Any]) -> None:
        if self.cutover is not None:
            self.cutover.hear(event)

    def _on_doubt(self, event: dict[str, Any]) -> None:
        """Times come from the source alone; of the destination's events only this one matters."""
        if event["event"] == "undecided":
            self._on_event(event)


def _open_side(
    name: str, inventory: Inventory, role: str, on_event: Callable[[dict[str, Any]], None]
) -> tuple[Side, Agent, ExitStack]:
    """Connect to one host and start its agents. What was opened is closed by the stack that comes with it."""
    with ExitStack() as stack:
        connection = stack.enter_context(ssh.connected(name, inventory.host(name)))
        api = docker.client(connection)
        stack.callback(api.close)
        facts = stack.enter_context(Agent(connection, "facts"))
        agent = stack.enter_context(Agent(connection, role, on_event))
        return Side(name, connection, api, facts), agent, stack.pop_all()
