"""The cutover at the source. From the freeze on only this process decides when the container may run again.

It may run at once as long as the other side can't have everything that it needs. After that it may run only when the
gateway has called the migration off.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import (
    authenticated,
    breakpoints,
    criu,
    dumps,
    interposed,
    messages,
    points,
    session_terminals,
    volume_marks,
)
from ..files import links
from ..files.log import TAIL
from ..files.printing import Drained
from ..images import dump_stats
from ..memory import pipes
from ..network.handshakes import Handshakes
from ..points import Point
from ..protocol import (
    AtWork,
    Began,
    Committed,
    Frozen,
    ImagesSent,
    LastDumped,
    Outcome,
    Received,
    Removed,
    Restored,
    Settled,
    Thawed,
    Undecided,
)
from ..routes import COMMITTED, ROLLED_BACK
from ..trigger import Trigger
from ..wire import SILENT_S, AgentError, Alive
from .container import Container
from .dump import Dump, LazyDump, Wanted
from .quiet import Quiet
from .supplement import Supplement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..authenticated import Gateway
    from ..protocol import ArmSource, Event
    from ..wire import Controller
    from .live import Live

RESTORE_TIMEOUT_S = 120
GROUP_TIMEOUT_S = 600
"""Seconds that the destination may take, and seconds that it may additionally wait for the others of a group."""

ASK_AGAIN_S = 1
ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S = 10, 5
HAND_OVER_S = 15
"""Seconds without an answer of the gateway. Then a living controller has to ask, over its own connection."""

STEPS = {"received": "transfer", "restored": "restore", "committed": "network switch"}
"""The phases of the destination in their order, each with the step that fails if it is not reached."""

METADATA_EXCEPT = {".log", ".pid", ".places"}


def arm(live: Live, order: ArmSource, controller: Controller) -> Armed:
    """Find bridge port and control group. Start runc and CRIU, up to the point where CRIU reads the processes.

    In a post-copy the pages stay here until they are asked for. The restart policy is in the journal by now. It is
    suspended until this side has won. If anything fails, what was opened here is closed with `live`.
    """
    held = live.resources
    live.policy.suspend(order.restart_policy)
    held.callback(breakpoints.Ready().close)
    gateway = authenticated.Gateway(order.gateway, live.order.migration, ANSWER_TIMEOUT_S)
    held.callback(gateway.close)
    container = Container.find(live.order.container, order.address, order.bridge, live.directory)
    held.callback(container.close)
    container.look_for_sessions(live.descriptors)
    trigger = Trigger(live.directory / "armed", "final dump")
    held.callback(trigger.close)
    # The destination has a network namespace ready, so the images need none.
    settings = session_terminals.settings(container.first)
    settings += container.left.settings + f"external net[{container.network}]:{criu.NETWORK}\n"
    outgoing = live.outgoing(order.pages_port, live.images.name, plain=order.post_copy)
    held.callback(outgoing.close)
    if order.post_copy:
        pipes.raise_limits(live.order.migration)
    wanted = Wanted(
        container.id,
        container.group,
        live.images,
        settings + outgoing.settings,
        interposed.environment(silently=container.watches),
        container.freezer,
        live.on_top + container.left.options,
    )
    dump = (LazyDump if order.post_copy else Dump)(wanted, trigger, outgoing)
    held.callback(dump.end)
    files_sent = live.sender.catch_up() > 0
    dump.wait_until_ready()
    live.print_again()
    ports = [live.order.peer.rsync_port]
    if not order.post_copy:  # otherwise the pager decides when it has ended
        ports.append(order.pages_port)
    handshakes = Handshakes(f"/proc/{container.first}/ns/net")
    held.callback(handshakes.close)
    quiet = Quiet(container, gateway, handshakes)
    armed = Armed(live, controller, gateway, container, dump, quiet, ports, files_sent=files_sent)
    armed.prepare()
    return armed


class Armed:
    """The source, ready for the freeze, and everything from `go` to the end.

    ========================= ================================== =================================================
    state                     what may happen                    the container here
    ========================= ================================== =================================================
    armed                     `go`                               runs
    not everything sent       any failure: rolled back           frozen; thawed at once, without any question
    everything sent           the gateway is asked               frozen until the gateway's answer
    undecided                 `decided`, or asked at `close`     stays frozen
    rolled back               nothing more                       runs, with its restart policy
    committed                 `remove_container`                 never runs again
    ========================= ================================== =================================================
    """

    def __init__(
        self,
        live: Live,
        controller: Controller,
        gateway: Gateway,
        container: Container,
        dump: Dump,
        quiet: Quiet,
        ports: Sequence[int],
        *,
        files_sent: bool,
    ) -> None:
        """`ports`: where the destination takes files and pages. `files_sent`: whether it has files to flush."""
        self._live, self._controller, self._gateway = live, controller, gateway
        self._container, self._dump = container, dump
        self._ports, self._files_sent = ports, files_sent
        self._supplement = Supplement(container, live.interrupted)
        self._quiet = quiet
        self._everything_sent = False
        self._outcome: str | None = None
        self._removed: Removed | None = None

    @property
    def _committed(self) -> bool:
        """Whether the gateway has said so, to this agent or to the controller. Only the gateway's word counts."""
        return self._outcome == COMMITTED

    def prepare(self) -> None:
        """Let the gateway prepare for holding packets, and read the options of the sockets, which takes long."""
        self._gateway.demand("prepare")
        self._supplement.read_ahead()

    def go(self) -> Outcome:
        """Run the cutover. Returns the gateway's outcome. Sends an event for every phase.

        UNDECIDED if the gateway gives no outcome in time. Then the copy here stays frozen until `decided` or `close`.
        If it was rolled back, AgentError has the reason.
        """
        alive = Alive(lambda: self._controller.event(AtWork()))
        try:
            return self._cut_over()
        finally:
            alive.end()

    def _cut_over(self) -> Outcome:
        step = "final dump"
        committed, committed_ns = Committed(), 0
        try:
            self._freeze()
            self._send(self._dump_all())
            for phase, step in STEPS.items():
                said = messages.progress(self._hear())
                if isinstance(said, messages.Failed):
                    raise AgentError(said.why, said.step or step)
                if said.phase != phase:
                    raise AgentError(f"the destination said {said.phase} instead of {phase}", step)
                event = _of_destination(said)
                if isinstance(event, Committed):
                    committed, committed_ns = event, time.monotonic_ns()
                else:
                    self._controller.event(event)
        except Exception as failure:
            outcome = self._settle()
            self._controller.event(Settled(outcome))
            if outcome is not Outcome.ROLLED_BACK:
                return outcome
            raise AgentError(f"{failure}", getattr(failure, "step", None) or step) from failure
        # The container runs there by now. But only the gateway's word ends it here.
        outcome = self._settle()
        if outcome is Outcome.ROLLED_BACK:
            self._controller.event(Settled(outcome))
            raise AgentError(
                "the destination said that it has the container, and the gateway denies it", step
            )
        self._controller.event(committed, committed_ns)
        return outcome

    def _freeze(self) -> None:
        """First the gateway holds packets. Then the processes are frozen. Then the port is detached."""
        tell = self._controller.event
        self._quiet.wait()
        tell(Began())
        self._live.print_again()
        self._live.interrupted.note(self._container.processes)
        stopped = self._quiet.freeze()
        tell(Frozen(self._quiet.cut_off))
        points.passed(Point.FROZEN)
        self._container.set_aside(stopped)

    def _dump_all(self) -> Last:
        """Dump the rest of memory and send the rest of files, at the same time.

        Then only the images without pages are left.
        """
        live, container, images = self._live, self._container, self._live.images
        live.sender.begin_dump()
        self._dump.begin()
        drained = None
        if live.log is not None:
            drained = Drained(container.id, container.first, live.descriptors, live.log.path)
        with live.watched(*self._ports), self._dump.pushed():
            try:
                file_bytes = live.sender.final_pass(container.processes)
                self._supplement.write(images)
            finally:
                self._dump.wait()
            self._supplement.amend(images)
            names = links.needed(images, container.processes, live.sender.trees)
        packed_bytes = self._dump.sent().get("packed_bytes", 0)
        self._controller.event(LastDumped(file_bytes, dump_stats(images), packed_bytes))
        points.passed(Point.DUMPED)
        if live.log is not None and drained is not None:
            drained.wait()
            (images / TAIL).write_bytes(b"".join(iter(live.log.take, b"")))
        metadata = [path for path in sorted(images.iterdir()) if _travels(path)]
        sizes = {path: path.stat().st_size for path in metadata}
        return Last(sizes, names, files=self._files_sent or file_bytes > 0)

    def _send(self, last: Last) -> None:
        """Send the last images. From the first byte on, the other side may have everything."""
        link = self._live.link
        self._everything_sent = True
        link.socket.settimeout(criu.STANDSTILL_S)
        listed = [{"name": path.name, "size": size} for path, size in last.images.items()]
        with link.together():
            link.send(images=listed, links=last.links, files=last.files)
            link.send_files(last.images.items())
        self._controller.event(ImagesSent(sum(last.images.values())))

    def _hear(self) -> dict[str, Any]:
        """The destination's next message. AgentError if none comes, though it sends some while it works."""
        together = self._gateway.decides_together
        deadline = time.monotonic() + (GROUP_TIMEOUT_S if together else RESTORE_TIMEOUT_S)
        while messages.is_alive(answer := self._live.link.receive(SILENT_S)):
            if time.monotonic() > deadline:
                raise AgentError("the destination has not come to an end with it in time")
        return answer

    def _settle(self) -> Outcome:
        """Get the outcome, if there is one. Thaws only if this side has the container."""
        if not self._everything_sent:
            self._outcome = ROLLED_BACK  # nobody else can have the container
            self._go_on()
            with contextlib.suppress(OSError, AgentError):
                if self._gateway.decides_together:  # the others wait for this one
                    self._gateway.connect(CONNECT_TIMEOUT_S)
                    self._call_off()
                else:  # held packets do not have to wait for the clean-up
                    self._gateway.put("release")
        else:
            self._outcome = self._ask_for_outcome(HAND_OVER_S)
            if self._outcome == ROLLED_BACK:
                self._go_on()
        if self._outcome == ROLLED_BACK:
            with contextlib.suppress(OSError, AgentError):  # `close` tries it again, and reports it
                self._live.policy.put_back()
        return Outcome.UNDECIDED if self._outcome is None else Outcome(self._outcome)

    def _call_off(self) -> str:
        """Ask the gateway to call the migration off, unless it has committed. Returns the recorded outcome."""
        return messages.outcome(self._gateway.demand("call_off"))

    def _ask_for_outcome(self, patience_s: float | None = None) -> str | None:
        """The outcome that the gateway has recorded. It records one when asked.

        None without an answer in `patience_s` seconds.

        An error is not an answer, nor is a message that does not come from the gateway: see `authenticated`.
        """
        until = None if patience_s is None else time.monotonic() + patience_s
        asked = 0
        while True:
            try:
                if asked:
                    self._gateway.connect(CONNECT_TIMEOUT_S)
                return self._call_off()
            except Exception as silent:  # noqa: BLE001 - no exception is an answer
                if asked == 0:
                    self._controller.event(Undecided(f"the gateway does not answer: {silent}"))
            asked += 1
            if (said := dumps.told(self._live.directory)) is not None:
                return said
            if until is not None and time.monotonic() > until:
                return None
            time.sleep(ASK_AGAIN_S)

    def decided(self, outcome: Outcome) -> None:
        """Take the outcome that the controller got from the gateway by its own connection."""
        if self._outcome is None and outcome is not Outcome.UNDECIDED:
            self._outcome = outcome.value
            if outcome is Outcome.ROLLED_BACK:
                self._release()

    def _release(self) -> None:
        """Let the container run on here, in its state before the cutover."""
        self._go_on()
        self._live.policy.put_back()

    def _go_on(self) -> None:
        self._dump.end()
        self._live.put_quota_back()
        frozen_ns = self._container.go_on()
        if frozen_ns is not None:
            self._controller.event(Thawed(frozen_ns))

    def remove_container(self) -> Removed:
        """After the commit, end and remove this copy when the other side has its memory.

        Returns the bytes that were fetched. A repeated order gets the same answer.
        """
        if self._removed is not None:
            return self._removed
        if not self._committed:
            raise AgentError(
                "the gateway has not said that the container is the destination's", "network switch"
            )
        fetched = self._dump.wait_until_fetched()
        self._container.remove()
        volume_marks.leave(self._live.order.migration)
        self._removed = Removed(fetched)
        return self._removed

    def close(self) -> None:
        """End the migration here. Without a commit the container runs on. If it may be committed, the gateway is asked.

        When everything was sent, this takes as long as the gateway does not answer.
        """
        if self._outcome is None and self._everything_sent:
            self._outcome = self._ask_for_outcome()
        if not self._committed:
            self._release()
        self._dump.end(committed=self._committed)


class Last(NamedTuple):
    """What the destination gets after the last dump: images with their sizes, and names that the restore needs.

    `files`: whether the destination has files to flush.
    """

    images: dict[Path, int]
    links: list[links.Link]
    files: bool


def _of_destination(said: messages.Reached) -> Event:
    """The event for the controller that a message of the destination becomes."""
    facts = dict(said.facts)
    if said.phase == "received":
        return Received(facts.get("page_bytes", 0))
    if said.phase == "restored":
        return Restored(facts.pop("restore_ns", 0), facts)
    return Committed(facts.get("held_packets"))


def _travels(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.suffix not in METADATA_EXCEPT
