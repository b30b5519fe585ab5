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

from sealift.attestation.attest import attest, keystore_of, reach
from sealift.attestation.provision import introduce, provision
from sealift.attestation.record import pinned
from sealift.errors import (
    CommandFailed,
    HostUnreachable,
    OutcomeUnknown,
    Refused,
    SealiftError,
    UnusableInput,
)
from sealift.host import docker, ssh
from sealift.host.agents import ORDER_TIMEOUT_S, Agent
from sealift.migration import progress
from sealift.migration.endings import Made, Traces, ending
from sealift.migration.recovery import end_unfinished
from sealift.model import Choice, Round, Step, StepRecord, Strategy
from sealift_agent.protocol import (
    CloseDestination,
    CloseSource,
    End,
    Enter,
    Note,
    Order,
    Outcome,
    ReleaseHeld,
    RemoveContainer,
    Role,
    StartPageServer,
    TakeOver,
    Undecided,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.attestation.keystore import Keystore
    from sealift.attestation.record import Record
    from sealift.inventory import Inventory
    from sealift.migration.cutover import Cutover
    from sealift.model import Estimate
    from sealift_agent.protocol import Happened


CLOSE_TIMEOUT_S = 45
UNKNOWN = "unknown"
"""What `Cutover.settle` says where nobody could be asked."""

ASK_AGAIN_S = 0.2
"""How often a migration that waits for its turn asks for it."""


@dataclass(frozen=True)
class Request:
    """What is asked for. `evidence`: snp, sev, none; None is what the inventory says of the destination.

    `max_downtime_s` bounds the predicted freeze, `bandwidth` what the live phases send, in bytes a second.
    `throttle`: whether a writer that never converges may be slowed down. `compress`: whether pages are, on their way.
    `streams`: over how many connections they go; None is as many as were measured to be worth it.
    """

    container: str
    source: str
    destination: str
    strategy: Strategy = Strategy.AUTO
    max_rounds: int = 5
    evidence: str | None = None
    max_downtime_s: float | None = None
    bandwidth: int | None = None
    throttle: bool = False
    compress: bool = False
    streams: int | None = None


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

    record: Record | None = None  # attest: what the destination proved; None without evidence
    container: dict[str, Any] = field(default_factory=dict)  # preflight: Docker's description of it
    address: str = ""  # preflight
    memory_bytes: int = 0  # preflight
    image_at_destination: bool = False  # preflight
    warnings: list[str] = field(default_factory=list)  # preflight
    choice: Choice = field(
        default_factory=lambda: Choice(strategy=Strategy.STOP_AND_COPY, why="")
    )  # preflight
    estimate: Estimate | None = None  # preflight
    estimated_ns: int = 0  # preflight: when, by time.monotonic_ns
    restart_policy: dict[str, Any] | None = (
        None  # final dump: Docker's, of the source's container; it gets it back
    )
    copy: str = ""  # sync: id of the destination's container
    volumes: dict[str, str] = field(default_factory=dict)  # sync: those that were made for it, and when
    lazy_restore: bool = False  # preflight: whether memory is filled in behind the restored processes
    descriptors: list[str] = field(default_factory=list)  # sync: what the container's standard ones lead to
    log: str | None = None  # sync: where the destination keeps what the container prints
    log_marked: int = 0  # sync: how much of it is there before the freeze, in bytes
    image_bytes: int = 0  # sync
    file_bytes: int = 0  # sync, transfer
    rounds: list[Round] = field(default_factory=list)  # pre-dump, and one while it is armed
    round_ended_ns: int = 0  # pre-dump: the last of them, by time.monotonic_ns
    last_images: str | None = None  # pre-dump
    throttled_cpus: float | None = None  # pre-dump: what was left to a writer that never converged
    packed_bytes: int = 0  # pre-dump: what the pages of all rounds came to, compressed
    fetched_bytes: int = 0  # finish: memory that followed after the commit


class Session:
    """Use as `with Session.open(…) as session`."""

    def __init__(
        self,
        inventory: Inventory,
        request: Request,
        stack: ExitStack,
        keystore: Keystore | None = None,
        *,
        waits: bool = True,
    ) -> None:
        self.inventory = pinned(inventory)
        self.request = request
        self.keystore = keystore or keystore_of(inventory)
        self.migration = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.started_ns = time.monotonic_ns()
        self.found = Found()
        self.records: list[StepRecord] = []
        self.cutover: Cutover | None = None
        self.finished = False
        self.creating: Made | None = None
        self.noted = False
        self.unsettled = False
        self._lock = threading.Lock()
        self._stack = stack
        self._arrived: ssh.Connection | None = None
        self._there: tuple[Side, Agent, ExitStack] | None = None
        # A login and two interpreters: seconds where a VM is emulated. Meanwhile the destination is attested.
        pool = stack.enter_context(ThreadPoolExecutor(1))
        self._here = pool.submit(self._open_source)
        stack.callback(self._close_sides)
        self.gateway_connection = stack.enter_context(ssh.connected("gateway", inventory.gateway))
        self.gateway = stack.enter_context(Agent(self.gateway_connection, "gateway"))
        if waits:
            self._wait_for_turn()
        ended = end_unfinished(inventory, self.gateway)
        self.found.warnings += [one.sentence() for one in ended]

    @classmethod
    @contextmanager
    def open(
        cls, inventory: Inventory, request: Request, keystore: Keystore | None = None, *, waits: bool = True
    ) -> Iterator[Session]:
        """Connect to the source and the gateway; the destination comes with `attest`.

        It `waits` until the inventory's limits allow one more migration, unless it belongs to a group that has waited.
        What earlier migrations have left behind is put right first. Refused where nothing would vouch for the
        destination, and nobody asked for that by name.
        """
        inventory.host(request.source)
        check_evidence(inventory, request)
        if request.source == request.destination:
            raise UnusableInput(
                f"source and destination are both {request.source!r}",
                step=Step.PREFLIGHT,
                remedy="Name two different hosts",
            )
        with ExitStack() as stack:
            session = cls(inventory, request, stack, keystore, waits=waits)
            try:
                yield session
            finally:
                session.put_away()

    def _wait_for_turn(self) -> None:
        limits, here, there = self.inventory.limits, self.request.source, self.request.destination
        places = {here: limits.per_host, there: limits.per_host, f"{here} to {there}": limits.per_link}
        began = time.monotonic()
        while full := self.gateway.call(Enter(places)):
            self.found.warnings = [
                f"waited {time.monotonic() - began:.0f} s for its turn: {' and '.join(full)} had as many migrations "
                "as the inventory's limits allow"
            ]
            time.sleep(ASK_AGAIN_S)

    @property
    def source(self) -> Side:
        """The source; HostUnreachable if it is not there."""
        return self._here.result()[0]

    @property
    def sender(self) -> Agent:
        """The source's agent."""
        return self._here.result()[1]

    @property
    def destination(self) -> Side:
        """The destination, once it has been attested and provisioned."""
        return self._opened()[0]

    @property
    def receiver(self) -> Agent:
        """The destination's agent."""
        return self._opened()[1]

    @property
    def streams(self) -> int:
        """Over how many connections pages go."""
        return self.request.streams or (self.found.estimate.streams if self.found.estimate else 1)

    def start_page_server(self, name: str) -> int:
        """The destination takes the pages of the next dump, as `name`. Returns the port."""
        return self.receiver.call(
            StartPageServer(name, self.found.last_images, self.request.compress, self.streams)
        )

    def attest(self) -> str:
        """Verify what the destination is, before anything but a nonce is sent to it. Returns what was found."""
        name = self.request.destination
        if self._arrived is not None:
            self._arrived.close()
            self._arrived = None
        if self.request.evidence == "none":
            self._arrived = ssh.connect(name, self.inventory.host(name))
            self.source  # noqa: B018 - raises if it could not be opened
            return "none, as asked for: nothing vouches for this host but its pinned SSH key"
        self.found.record, self._arrived = attest(self.inventory, name, keystore=self.keystore)
        record = self.found.record
        self.inventory = self.inventory.known_as(
            name, host_key=record.ssh_host_key, wireguard_key=record.wireguard_key
        )
        self.source  # noqa: B018 - as above
        return f"{record.kind}, {'EMULATED' if record.emulated else record.generation}: {record.checks} checks hold"

    def provision(self) -> str:
        """Release keys to the verified destination, make the others know it, and start its agents."""
        if self._arrived is None:
            raise UnusableInput(
                "the destination was not attested", step=Step.PROVISION_KEYS, remedy="Attest it"
            )
        done = "none: without evidence no key is released"
        if self.found.record is not None:
            done = provision(self.inventory, self.found.record, self._arrived, self.keystore)
            others = [self.source.connection]
            introduce(self.inventory, self.request.destination, self.gateway, others)
        if self._there is None:
            self._there = _start_agents(
                self.request.destination, self._arrived, "destination", self._on_doubt
            )
        return done

    def _opened(self) -> tuple[Side, Agent, ExitStack]:
        if self._there is None:
            raise UnusableInput("the destination was not attested", remedy="Attest and provision it first")
        return self._there

    def _open_source(self) -> tuple[Side, Agent, ExitStack]:
        name = self.request.source
        connection = reach(self.inventory, name, keystore=self.keystore)
        return _start_agents(name, connection, "source", self._on_event)

    def _close_sides(self) -> None:
        if self._here.exception() is None:
            self._here.result()[2].close()
        if self._there is not None:
            self._there[2].close()
        elif self._arrived is not None:
            self._arrived.close()

    def note(self, phase: str, **facts: Any) -> None:
        """Write a transition into the journal at the gateway, before what it announces is done."""
        self.gateway.call(Note(self.migration, phase, facts))
        self.noted = True

    def put_away(self) -> None:
        """See to the end of both sides; what a host can't be told now is for it to see by itself."""
        progress.tell_leaving(self.request.container)
        outcome = self.cutover.settle() if self.cutover is not None else None
        if outcome == UNKNOWN:  # the hosts' agents ask on, and what they don't settle is left to `recover`
            self.unsettled = True
            self._left(OutcomeUnknown("what was decided is not known", remedy="`sealift recover` finds out"))
            return
        committed = outcome == "committed"
        if committed and not self.finished:
            try:
                self.remove_source()
            except SealiftError as silent:
                self._left(silent)
        sides: list[tuple[Agent, Order[None]]] = []
        if self._here.exception() is None:
            sides.append((self.sender, CloseSource()))
        if self._there is not None:
            sides.append((self.receiver, CloseDestination(called_off=outcome == "rolled back")))
        decided = Outcome.COMMITTED if committed else Outcome.ROLLED_BACK
        for agent, close in sides:
            try:
                # Once it has committed it may wait for memory. Else one that hangs is replaced by another.
                agent.call(close, timeout_s=ORDER_TIMEOUT_S if committed else CLOSE_TIMEOUT_S)
            except SealiftError as silent:
                self._left(silent)
                self._end_without_agent(close.ROLE, decided)
        if self.creating is not None:
            self._end_without_agent(Role.DESTINATION, Outcome.ROLLED_BACK)
        with suppress(SealiftError):  # with the agent ends what it holds
            self.gateway.call(End())
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
                    agent.call(TakeOver(self.migration))
                    agent.call(Note(self.migration, "closed"))
            else:
                self.gateway.call(Note(self.migration, "closed"))
        except SealiftError as silent:
            self._left(silent)

    def remove_source(self) -> None:
        """After the commit: the source's copy goes, by its agent or, where that was killed, by another.

        A post-copy's goes once all of its memory has been fetched.
        """
        try:
            self.found.fetched_bytes = self.sender.call(RemoveContainer()).page_bytes
        except HostUnreachable:
            self._end_without_agent(Role.SOURCE, Outcome.COMMITTED)
        except CommandFailed as failed:
            # Docker may be back when `recover` tries again. Memory that was never fetched is left to its owner.
            self.unsettled = failed.step != Step.FINISH
            self.finished = True
            raise
        self.finished = True  # not before: whoever is interrupted in there has it done again by `put_away`

    def revive_gateway(self) -> None:
        """Put a new agent in the place of the gateway's, which has died: the decision is on the gateway's disk."""
        self.gateway.close()
        if not self.gateway_connection.is_alive():  # the whole machine was away
            again = ssh.connected("gateway", self.inventory.gateway)
            self.gateway_connection = self._stack.enter_context(again)
        self.gateway = self._stack.enter_context(Agent(self.gateway_connection, "gateway"))
        self.gateway.call(TakeOver(self.migration))
        self.gateway.call(ReleaseHeld(self.found.address))

    def _traces(self) -> Traces:
        """What this migration has left on its hosts so far."""
        found = self.found
        return Traces(
            migration=self.migration,
            container=found.container.get("Id"),
            address=found.address,
            copy=found.copy or None,
            volumes=found.volumes,
            made=self.creating,
            restart_policy=found.restart_policy,
        )

    def _end_without_agent(self, role: Role, outcome: Outcome) -> None:
        """Have a fresh agent do it where one was lost. A host that has gone with it is left to `recover`."""
        side = self.source if role is Role.SOURCE else self.destination
        try:
            if (order := ending(role, outcome, self._traces())) is None:
                return
            with Agent(side.connection, role) as agent:
                agent.call(order)
        except SealiftError as silent:
            self.unsettled = True
            self._left(silent)

    def _sweep_gateway(self) -> None:
        if self.gateway.lost and self.found.address:
            try:
                with Agent(self.gateway_connection, "gateway") as agent:
                    agent.call(ReleaseHeld(self.found.address))
            except SealiftError as silent:
                self.unsettled = True
                self._left(silent)

    @contextmanager
    def step(self, step: Step) -> Iterator[dict[str, Any]]:
        """Record a step's time. The block may set `sent_bytes` and `note`; errors get the step's name."""
        facts: dict[str, Any] = {}
        progress.tell_began(self.request.container, step)
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
        progress.tell_ended(self.request.container, record)

    def recorded(self, step: Step) -> StepRecord:
        """The record of a step that has ended."""
        return next(record for record in self.records if record.step == step)

    def _on_event(self, happened: Happened) -> None:
        if self.cutover is not None:
            self.cutover.hear(happened)

    def _on_doubt(self, happened: Happened) -> None:
        """Times come from the source alone; of the destination's events only this one matters."""
        if isinstance(happened.event, Undecided):
            self._on_event(happened)


def check_evidence(inventory: Inventory, request: Request) -> None:
    """What is asked for and what the inventory says of the destination go together. Touches nothing."""
    host, asked = inventory.host(request.destination), request.evidence
    if asked == "none":
        return
    if host.vm is None:
        raise Refused(
            "nothing would vouch for it: the inventory has no table `vm` that says what it must prove",
            host=request.destination,
            step=Step.ATTEST,
            remedy="Add one (README, section Inventory), or ask for `--evidence none` by name",
        )
    if asked not in {None, host.vm.evidence}:
        raise Refused(
            f"{asked} is asked for, and the inventory says that it proves itself by {host.vm.evidence}",
            host=request.destination,
            step=Step.ATTEST,
            remedy="Take snp, sev or none as the inventory has it",
        )


def _start_agents(
    name: str, connection: ssh.Connection, role: str, on_event: Callable[[Happened], None]
) -> tuple[Side, Agent, ExitStack]:
    """Start the agents of one host. What was opened, the connection too, is closed by the stack that comes with it."""
    with ExitStack() as stack:
        stack.enter_context(connection)
        api = docker.client(connection)
        stack.callback(api.close)
        facts = stack.enter_context(Agent(connection, "facts"))
        agent = stack.enter_context(Agent(connection, role, on_event))
        return Side(name, connection, api, facts), agent, stack.pop_all()
