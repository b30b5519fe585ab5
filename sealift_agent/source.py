"""The source: live passes and pre-dumps while the container runs, then the cutover, which needs no controller.

From the freeze on, this process alone decides when the container may run again: at once as long as the other side can't
have everything it needs, afterwards only when the gateway has called the migration off.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import (
    authenticated,
    brake,
    breakpoints,
    cgroup,
    criu,
    docker_api,
    dumps,
    limits,
    messages,
    points,
    protocol,
    restart,
    timerfd,
    volume_marks,
)
from .constants import PAGE_BYTES
from .files import links, watches
from .files.log import PIECE_BYTES, TAIL, Log
from .files.printing import Drained
from .files.rsync import Sender, View
from .images import dump_stats, lazy_ranges
from .memory import hugepages, pipes, zstd
from .memory.relay import CHUNK_BYTES, Pace
from .memory.transfer import Outgoing
from .network import bridge_port, repair
from .orders import Orders
from .points import Point
from .protocol import Dumped, LogSent, Outcome, Removed, Role
from .routes import COMMITTED, ROLLED_BACK
from .trigger import Trigger, let_go
from .wire import SILENT_S, AgentError, Alive, Controller, Link, watched

if TYPE_CHECKING:
    from .protocol import ArmSource, Decider, Door, OpenSource, Resume

RESTORE_TIMEOUT_S = 120
GROUP_TIMEOUT_S = 600
"""How long the destination may take, and how long it may wait for the others of a group besides."""

ASK_AGAIN_S = 1
ANSWER_TIMEOUT_S = 10
HAND_OVER_S = 15
"""How long the gateway is asked before the controller, if it lives, is told that it has to: it has a way of its own."""

DUMP_TIMEOUT_S = 60
LET_GO_S = 5
"""How long a dump that stood still has to end once the container is thawed."""

PRINTED_S = 5
"""How long what was printed may take to be printed again at the destination, before the freeze."""

FETCH_TIMEOUT_S = 600
DUMP_CALL, LAZY_DUMP_CALL = 2, 3
"""runc asks CRIU for its version, before a lazy dump for its features, then for the dump."""

INHERITED = ("--page-server", "127.0.0.1:1")
"""runc's word for CRIU to send its pages away. Where to, the settings say: to a connection that it inherits."""

METADATA_EXCEPT = {".log", ".pid"}


class Source:
    """One migration, seen from where the container runs."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.frozen = False
        self.outcome: str | None = None
        self.everything_sent = False
        self.files_sent = False
        self.bridge_port: bridge_port.BridgePort | None = None
        self.link: Link | None = None
        self.decider: Link | None = None
        self._gateway: Decider | None = None
        self.parent: str | None = None
        self.log: Log | None = None
        self.trigger: Trigger | None = None
        self.dump: Any = None
        self.pages: str | None = None
        self.outgoing: Outgoing | None = None
        self.compress, self.streams = False, 1
        self.stand_in: Path | None = None
        self.removed: Removed | None = None
        self.restart: dict[str, Any] | None = None
        self.breakpoints: breakpoints.Ready | None = None

    @property
    def committed(self) -> bool:
        """Whether the gateway has said so, to this agent or to the controller: nobody else's word counts."""
        return self.outcome == COMMITTED

    @property
    def gateway(self) -> Decider:
        """Where the gateway decides; `arm` came before."""
        assert self._gateway is not None  # noqa: S101
        return self._gateway

    def open(self, order: OpenSource) -> list[str]:
        """Connect to the destination and prepare to dump. Returns what the container's standard descriptors lead to.

        See `OpenSource`.
        """
        self.migration = migration = order.migration
        self.container = order.container
        self.peer = peer = order.peer
        self.bandwidth = order.bandwidth
        self.compress, self.streams = order.compress, order.streams
        if order.compress:
            zstd.require()
        self.directory, self.lock = dumps.make(migration)
        (self.directory / dumps.CONTAINER).write_text(order.container)
        self.images = self.directory / "final"
        try:
            self.sender = Sender(
                peer.address,
                peer.rsync_port,
                peer.password,
                order.trees,
                self.directory,
                order.bandwidth,
                self._view,
            )
        except AgentError:
            dumps.wipe(self.directory, self.lock)
            raise
        self.log = Log(order.log) if order.log else None
        try:
            self.link = Link.connect(peer.address, peer.port, peer.token)
        except OSError as silent:
            self.sender.close()
            dumps.wipe(self.directory, self.lock)
            raise AgentError(
                f"no answer from {peer.address} through the tunnel: {silent}", "sync"
            ) from silent
        self.descriptors = criu.descriptors(order.container)
        return self.descriptors

    def _view(self) -> View:
        pid = self._first_process()
        return View(Path(f"/proc/{pid}/root"), cgroup.pids(cgroup.of_process(pid)))

    def _first_process(self) -> int:
        return int(docker_api.call("GET", f"/containers/{self.container}/json")["State"]["Pid"])

    def live_pass(self) -> int:
        """Send the files that differ. Returns the bytes sent."""
        with self._watched(self.peer.rsync_port):
            return self.sender.live_pass()

    def send_log(self, name: str, behind: int = -1) -> LogSent | None:
        """Send what the container has printed so far, as `name`; the mark up to which it counts.

        None if there is no log, or no more than `behind` bytes were printed since the last mark.
        """
        if self.log is None or self.log.behind() <= behind:
            return None
        marked = self.log.mark()
        files = {path: f"{name}{ending}" for path, ending in self.log.files().items()}
        with self._watched(self.peer.rsync_port):
            return LogSent(marked, self.sender.copy("log", files))

    def _watched(self, *ports: int) -> contextlib.AbstractContextManager[None]:
        """While others send to these ports of the destination: they don't outlast it."""
        assert self.link is not None  # noqa: S101 - `open` came before
        return watched(self.link, self.peer.address, ports)

    def pre_dump(self, name: str, port: int) -> Dumped:
        """One round: the pages dirtied since the last one, straight to the destination's page server.

        `whole` in the answer says why writes to huge pages count for all of them, if they do.
        """
        images = self.directory / name
        outgoing = self._outgoing(port, name, rate=self.bandwidth)
        try:
            whole = self._pre_dump(images, port, outgoing)
        finally:
            outgoing.close()
        self.parent = name
        return Dumped(dump_stats(images), outgoing.sent().get("packed_bytes", 0), whole)

    def _outgoing(self, port: int, name: str, rate: int | None = None, *, plain: bool = False) -> Outgoing:
        """What takes the pages of a dump to the destination's port for them; as they are if they follow later."""
        where = (self.peer.address, port)
        if plain:
            return Outgoing(where, self.peer.token, name)
        return Outgoing(where, self.peer.token, name, rate=rate, compress=self.compress, streams=self.streams)

    def _pre_dump(self, images: Path, port: int, outgoing: Outgoing) -> str | None:
        pids = cgroup.pids(cgroup.of_process(self._first_process()))
        whole = hugepages.split(pids)
        settings = self.directory / "pre-dump.conf"
        settings.write_bytes(os.fsencode(watches.settings(pids) + outgoing.settings))
        env = {**(limits.environment(pids) or os.environ), criu.SETTINGS: str(settings)}
        options = ["--pre-dump", *INHERITED, *self._parent()]
        dump = criu.checkpoint(self.container, images, *options, env=env, pass_fds=[outgoing.descriptor])
        outgoing.hand_over()
        with self._watched(port), outgoing.pushed():
            criu.finish(dump, "pre-dump", images / "dump.log")
        return whole

    def slow_down(self) -> float | None:
        """Halve what the container uses of the CPUs, until `release`. Returns how many; None if it is at the least."""
        return brake.slow_down(self.directory, self._first_process())

    def gather_pages(self) -> int:
        """Put small pages together, which makes the dump of a post-copy shorter. Returns the bytes in huge pages."""
        return hugepages.gather(cgroup.pids(cgroup.of_process(self._first_process())))

    def arm(self, order: ArmSource) -> None:
        """Find bridge port and control group, and start runc up to where CRIU looks at the processes.

        In a post-copy the pages stay here until they are asked for. The restart policy, which the journal has by now,
        is out of force until this side has won. See `ArmSource`.
        """
        self._gateway = gateway = order.gateway
        self.restart = order.restart_policy
        restart.suspend(self.container)
        self.breakpoints = breakpoints.Ready()
        self.decider = Link.connect(gateway.address, gateway.port, gateway.token)
        state = docker_api.call("GET", f"/containers/{self.container}/json")["State"]
        if not state["Running"] or not state["Pid"]:
            raise AgentError("the container has stopped meanwhile", "final dump")
        self.first = int(state["Pid"])
        self.group = cgroup.of_process(state["Pid"])
        namespace = Path(f"/proc/{state['Pid']}/ns/net")
        self.bridge_port = bridge_port.find(str(namespace), order.address, order.bridge)
        if cgroup.stopped(self.group):
            self.stand_in = cgroup.stand_in(self.group, self.directory / "freezer")
        env = limits.environment(cgroup.pids(self.group))
        self.trigger = Trigger(self.directory / "armed", "final dump")
        self.doors = [self.peer.rsync_port, order.pages_port]
        settings = watches.settings(cgroup.pids(self.group))
        if order.external_network:
            settings += f"external net[{namespace.stat().st_ino}]:{criu.NETWORK}\n"
        self.outgoing = self._outgoing(order.pages_port, self.images.name, plain=order.post_copy)
        settings += self.outgoing.settings
        if order.post_copy:
            self._start_lazy_dump(settings, env)
        else:
            self.dump = criu.checkpoint(
                self.container,
                self.images,
                "--leave-running",
                *INHERITED,
                *self._parent(),
                env=self.trigger.environment(DUMP_CALL, settings, env),
                freezer=self.stand_in,
                pass_fds=[self.outgoing.descriptor],
            )
            self.outgoing.hand_over()
        self.files_sent = self.sender.catch_up() > 0
        self.trigger.wait("ready", self._dump_has_ended)
        self._send_printed()
        self._ask_decider("prepare")

    def _send_printed(self) -> None:
        """What was printed since the mark is printed again at the destination, before the freeze: little is left to it.

        AgentError where the container prints faster than the destination's Docker takes it.
        """
        deadline = time.monotonic() + PRINTED_S
        while self.log is not None and self.link is not None and (piece := self.log.take()):
            self.link.send(printed=len(piece))
            self.link.socket.sendall(piece)
            if isinstance(said := messages.taken(self.link.receive(criu.STANDSTILL_S)), messages.Failed):
                raise AgentError(said.why, said.step or "final dump")
            if len(piece) < PIECE_BYTES // 4:
                return
            if time.monotonic() > deadline:
                raise AgentError(
                    "the container prints faster than the destination's Docker writes: have it print less meanwhile",
                    "final dump",
                )

    def _start_lazy_dump(self, settings: str, env: dict[str, str] | None) -> None:
        """CRIU serves its pages on the connection: the one that reads them has proved itself, and nobody else can."""
        assert self.trigger and self.outgoing  # noqa: S101, PT018 - `arm` came before
        pipes.make_room(self.migration)
        self.pages = self.outgoing.name
        self.doors.pop()  # its end is the pager's to judge
        (self.directory / "pages").write_text(self.pages)
        read_end, write_end = os.pipe()
        self.dumped = os.fdopen(read_end, "rb", buffering=0)
        self.dump = criu.checkpoint(
            self.container,
            self.images,
            "--leave-running",
            "--lazy-pages",
            "--status-fd",
            str(write_end),
            env=self.trigger.environment(LAZY_DUMP_CALL, settings, env),
            freezer=self.stand_in,
            pass_fds=[write_end, self.outgoing.descriptor],
        )
        os.close(write_end)
        self.outgoing.let_go()

    def _pushed(self) -> contextlib.AbstractContextManager[object]:
        if self.pages is not None or self.outgoing is None:
            return contextlib.nullcontext()
        return self.outgoing.pushed()

    def _wait_for_dump(self) -> None:
        """Until all is dumped; of a post-copy's memory until it can be asked for."""
        said: list[Any] = [self.dumped] if self.pages is not None else []
        progress = criu.Progress(self.images / "dump.log", self.dump.pid)
        with criu.end_of(self.dump) as ended:
            while not select.select([ended, *said], [], [], criu.LOOK_S)[0]:
                if progress.stands_still():
                    self._dump_stands_still()
        if self.pages is not None and self.dumped.read(1):
            return
        criu.finish(self.dump, "final dump", self.images / "dump.log", bounded=True)

    def _dump_stands_still(self) -> NoReturn:
        """CRIU waits for something that frozen processes won't do. Thawed they may; what is dumped is thrown away."""
        self._end_dump()
        why = f"CRIU has stood still for {criu.STANDSTILL_S} s while it dumped the frozen container"
        raise AgentError(why, "final dump")

    def _end_dump(self) -> None:
        cgroup.thaw(self.group)
        try:
            self.dump.wait(LET_GO_S)
        except subprocess.TimeoutExpired:
            repair.end(cgroup.pids(self.group))  # they run as soon as it is dead
            criu.kill_criu(self.directory)

    def _dump_has_ended(self) -> str | None:
        if self.dump.poll() is None:
            return None
        output, _ = self.dump.communicate()
        return criu.reason(self.images / "dump.log") or output.strip()[-500:] or "runc ended"

    def go(self) -> str:
        """The cutover. Returns the outcome, by the gateway's own word; tells every phase as it passes.

        "undecided" if the gateway gives none for so long: then the copy here stays frozen until `decided` or `close`.
        """
        alive = Alive(lambda: self.controller.event("alive"))
        try:
            return self._cut_over()
        finally:
            alive.end()

    def _cut_over(self) -> str:
        step = "final dump"
        committed: dict[str, Any] = {}
        try:
            self._dump_and_send()
            for phase, step in (
                ("received", "transfer"),
                ("restored", "restore"),
                ("committed", "network switch"),
            ):
                said = messages.progress(self._hear())
                if isinstance(said, messages.Failed):
                    raise AgentError(said.why, said.step or step)
                if said.phase != phase:
                    raise AgentError(f"the destination said {said.phase} instead of {phase}", step)
                if phase == "committed":
                    committed = {**said.facts, "at_ns": time.monotonic_ns()}
                else:
                    self.controller.event(phase, **said.facts)
        except Exception as failure:
            outcome = self._settle()
            self.controller.event("settled", outcome=outcome)
            if outcome != ROLLED_BACK:
                return outcome
            raise AgentError(f"{failure}", getattr(failure, "step", None) or step) from failure
        # The container runs there by now. But what ends it here is the gateway's word alone.
        outcome = self._settle()
        if outcome == ROLLED_BACK:
            self.controller.event("settled", outcome=outcome)
            raise AgentError(
                "the destination said that it has the container, and the gateway denies it", step
            )
        self.controller.tell(event="committed", **committed)
        return outcome

    def decided(self, outcome: str) -> None:
        """The controller has it from the gateway, over a way of its own."""
        if self.outcome is None:
            self.outcome = outcome
            if outcome == ROLLED_BACK:
                self.release()

    def _ask_decider(self, question: str) -> dict[str, Any]:
        assert self.decider is not None  # noqa: S101 - `arm` has connected
        answer = authenticated.ask(self.decider, self.gateway.key, self.migration, question, ANSWER_TIMEOUT_S)
        if (refused := messages.refusal(answer)) is not None:
            raise AgentError(refused, "final dump")
        return answer

    def _dump_and_send(self) -> None:
        assert self.bridge_port and self.link and self.trigger  # noqa: S101, PT018 - `arm` came before
        tell = self.controller.event
        tell("go")
        self._send_printed()
        self._ask_decider("hold")
        # Frozen first, cut off then: an answer that was dropped at a port without a bridge would have to wait for the
        # restored socket's retransmission timer, a whole second. What arrives in between is part of the dump.
        stopped = cgroup.stopped(self.group) if self.stand_in is not None else []
        cgroup.freeze(self.group)
        self.frozen = True
        self.frozen_at = time.monotonic_ns()
        self.bridge_port.detach()
        tell("frozen")
        points.passed(Point.FROZEN)
        images = self.images
        if self.stand_in is not None:
            cgroup.set_aside(self.group, stopped, self.stand_in)
        self.sender.begin_dump()
        self.trigger.say("go")
        drained = Drained(self.container, self.first, self.descriptors, self.log.path) if self.log else None
        with self._watched(*self.doors), self._pushed():
            try:
                file_bytes = self.sender.final_pass(cgroup.pids(self.group))
                self.files_sent = self.files_sent or file_bytes > 0
            finally:
                self._wait_for_dump()
            timerfd.start_again(images)
            names = links.needed(images, cgroup.pids(self.group), self.sender.trees)
        carried = self.outgoing.sent() if self.outgoing is not None else {}
        tell("dumped", file_bytes=file_bytes, **dump_stats(images), **carried)
        points.passed(Point.DUMPED)
        if self.log is not None and drained is not None:
            drained.wait()
            (images / TAIL).write_bytes(b"".join(iter(self.log.take, b"")))
        metadata = [path for path in sorted(images.iterdir()) if _travels(path)]
        sizes = {path: path.stat().st_size for path in metadata}
        self.everything_sent = True
        self.link.socket.settimeout(criu.STANDSTILL_S)
        listed = [{"name": path.name, "size": size} for path, size in sizes.items()]
        with self.link.together():
            self.link.send(images=listed, links=names, files=self.files_sent)
            for path, size in sizes.items():
                self.link.send_file(path, size)
        tell("sent", metadata_bytes=sum(sizes.values()))

    def _hear(self) -> dict[str, Any]:
        """What the destination says next. AgentError if it is silent, though one that is at work says so."""
        assert self.link is not None  # noqa: S101 - `open` came before
        deadline = time.monotonic() + (GROUP_TIMEOUT_S if self.gateway.group else RESTORE_TIMEOUT_S)
        while messages.is_alive(answer := self.link.receive(SILENT_S)):
            if time.monotonic() > deadline:
                raise AgentError("the destination has not come to an end with it in time")
        return answer

    def _settle(self) -> str:
        """The outcome, or that there is none yet. Thaws when, and only when, this side has the container."""
        if not self.everything_sent:
            self.outcome = ROLLED_BACK  # nobody else can have the container
            self._go_on()
            with contextlib.suppress(OSError, AgentError):
                if self.gateway.group:  # the others wait for this one
                    self._call_off()
                elif self.decider is not None:  # what is held need not wait for all to be put in order
                    authenticated.put(self.decider, self.gateway.key, self.migration, "release")
        else:
            self.outcome = self._ask_gateway(HAND_OVER_S)
            if self.outcome == ROLLED_BACK:
                self._go_on()
        if self.outcome == ROLLED_BACK:
            with contextlib.suppress(OSError, AgentError):  # tried again, and said, by `close`
                self._put_policy_back()
        return self.outcome or Outcome.UNDECIDED.value

    def _ask_gateway(self, patience_s: float | None = None) -> str | None:
        """What it has on record; from now on that is something. None after so long without an answer.

        An error is no answer, nor is what does not come from the gateway: see `authenticated`.
        """
        until = None if patience_s is None else time.monotonic() + patience_s
        asked = 0
        while True:
            try:
                return self._call_off(again=asked > 0)
            except Exception as silent:  # noqa: BLE001 - whatever it is, it is no answer
                if asked == 0:
                    self.controller.event("undecided", reason=f"the gateway does not answer: {silent}")
            asked += 1
            if (said := dumps.told(self.directory)) is not None:
                return said
            if until is not None and time.monotonic() > until:
                return None
            time.sleep(ASK_AGAIN_S)

    def _call_off(self, *, again: bool = True) -> str:
        """Ask for the outcome, over the connection that is there, or `again` over another."""
        if again or self.decider is None:
            if self.decider is not None:
                self.decider.close()
            self.decider = Link.connect(
                self.gateway.address, self.gateway.port, self.gateway.token, timeout=5
            )
        return messages.outcome(self._ask_decider("call_off"))

    def release(self) -> None:
        """Let the container run on here, as if nothing had happened."""
        self._go_on()
        self._put_policy_back()

    def _go_on(self) -> None:
        self._disarm()
        if self.link is not None:
            brake.put_back(self.directory)
        if self.bridge_port is not None:
            self.bridge_port.attach()
        if self.frozen:
            repair.end(cgroup.pids(self.group))
            cgroup.thaw(self.group)
            self.frozen = False
            criu.forget_checkpoint(self.container)
            self.controller.event("thawed", frozen_ns=time.monotonic_ns() - self.frozen_at)

    def _put_policy_back(self) -> None:
        if self.restart is not None:
            restart.put_back(self.container, self.restart)
            self.restart = None

    def _disarm(self) -> None:
        """No dump any more; one that is under way comes to its end, since CRIU has something to clear away in there."""
        if self.trigger is not None:
            self.trigger.close()
        deadline = time.monotonic() + DUMP_TIMEOUT_S
        while self.dump is not None and self.dump.poll() is None:
            if time.monotonic() > deadline and not self.committed:
                self._end_dump()
            if self.pages is not None and not self.committed:
                dismiss(self.pages)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.dump.communicate(timeout=ASK_AGAIN_S)

    def remove_container(self) -> Removed:
        """After the commit: end this copy and remove it, once its memory is on the other side.

        Returns how much of it was fetched, in bytes. A second order is answered as the first was.
        """
        if self.removed is not None:
            return self.removed
        if not self.committed:
            raise AgentError(
                "the gateway has not said that the container is the destination's", "network switch"
            )
        fetched = 0
        if self.pages is not None:
            try:
                criu.finish(self.dump, "finish", self.images / "dump.log")
            except AgentError as lost:
                raise AgentError(
                    f"not all of the memory has been fetched, and the copy here stays frozen: {lost}",
                    "finish",
                ) from lost
            fetched = sum(pages for _, _, pages in lazy_ranges(self.images)) * PAGE_BYTES
        remove(self.container)
        volume_marks.leave(self.migration)
        self.frozen = False
        self.removed = Removed(fetched)
        return self.removed

    def close(self) -> None:
        """Forget the migration: wipe the images. Unless it has committed the container goes on."""
        if self.outcome is None and self.everything_sent:
            self.outcome = self._ask_gateway()
        if not self.committed:
            self.release()
        self._disarm()
        for held in (self.outgoing, self.breakpoints):
            if held is not None:
                held.close()
        if self.link is not None:
            self.sender.close()
            if self.log is not None:
                self.log.close()
            self.link.close()
            self.link = None
            if self.decider is not None:
                self.decider.close()
            dumps.wipe(self.directory, self.lock)
            pipes.put_back(self.migration)

    def _parent(self) -> list[str]:
        return ["--parent-path", f"../{self.parent}"] if self.parent else []


def dismiss(pages: str) -> None:
    """Have a CRIU that serves pages, or is to, give up: its connection is cut, which `pages` names at this end."""
    subprocess.run(["ss", "--kill", "src", pages], capture_output=True, check=False)


def remove(container: str) -> None:
    """End the copy that did not win without letting it run, and remove it with its files.

    Named volumes stay, as with `docker rm`.
    """
    try:
        pid = docker_api.call("GET", f"/containers/{container}/json")["State"]["Pid"]
    except docker_api.NotThere:
        return
    if pid:
        restart.suspend(container)  # of one that was armed by an older Sealift: the policy would revive it
        group = cgroup.of_process(pid)
        ports: list[str] = []
        with contextlib.suppress(AgentError):  # its first process has ended by itself
            ports = bridge_port.outer_ends(f"/proc/{pid}/ns/net")
        cgroup.kill_frozen(group)
        cgroup.thaw(group)
        # A dockerd that dies while it removes a container forgets the network namespace, and the veth pair stays in it.
        for port in ports:
            bridge_port.delete(port)
    docker_api.call("DELETE", f"/containers/{container}?force=1&v=1")


def discard(migration: str, container: str) -> None:
    """After an agent that was killed, and a decision for the migration: this host's copy goes."""
    with dumps.abandoned(migration, COMMITTED) as directory:
        deadline = time.monotonic() + FETCH_TIMEOUT_S
        while dumps.workers(directory):  # a post-copy's memory is still being fetched
            if time.monotonic() > deadline:
                raise AgentError(f"memory is still being fetched after {FETCH_TIMEOUT_S} s", "finish")
            time.sleep(0.05)
        remove(container)
        volume_marks.leave(migration)
    pipes.put_back(migration)


def resume(order: Resume) -> None:
    """After an agent that was killed, and a decision against the migration: the container goes on here.

    Its restart policy, if it was taken from it, comes back. A host that lost its power has the container's disk.
    """
    container = order.container
    with dumps.abandoned(order.migration, ROLLED_BACK, kill=True) as directory:
        deadline = time.monotonic() + DUMP_TIMEOUT_S
        while dumps.workers(directory) and time.monotonic() < deadline:
            let_go(directory / "armed")
            with contextlib.suppress(OSError, ValueError):
                dismiss((directory / "pages").read_text())
            time.sleep(0.05)  # a CRIU that is killed leaves its parasite in the processes that it dumps
        try:
            state = docker_api.call("GET", f"/containers/{container}/json")["State"]
        except docker_api.NotThere:
            state = {"Pid": 0}  # removed meanwhile, by whoever owns it
        brake.put_back(directory)
        if state["Pid"]:
            bridge_port.find(f"/proc/{state['Pid']}/ns/net", order.address, order.bridge).attach()
            group = cgroup.of_process(state["Pid"])
            repair.end(cgroup.pids(group))
            cgroup.thaw(group)
            criu.forget_checkpoint(container)
        restart.put_back(container, order.restart_policy)
    pipes.put_back(order.migration)


def _travels(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.suffix not in METADATA_EXCEPT


def send_image(reference: str, door: Door, bandwidth: int | None = None) -> int:
    """Stream an image (`docker save`) to the destination. Returns the bytes sent; `bandwidth` limits their rate."""
    pace = Pace(bandwidth)
    link = Link.connect(door.address, door.port, door.token)
    connection, response = docker_api.request("GET", f"/images/{reference}/get", timeout=600)
    sent = 0
    try:
        if response.status != 200:
            raise AgentError(f"Docker refuses to save the image {reference}", "sync")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the other side says why below
            while chunk := response.read(1 << 20 if bandwidth is None else CHUNK_BYTES):
                link.socket.sendall(chunk)
                sent += len(chunk)
                pace.spent(len(chunk))
            link.socket.shutdown(socket.SHUT_WR)
        answer = link.receive(600)
        if (refused := messages.refusal(answer)) is not None:
            raise AgentError(refused, "sync")
        messages.loaded(answer)
    finally:
        connection.close()
        link.close()
    return sent


def main(controller: Controller) -> None:
    """Serve one controller for one migration."""
    source = Source(controller)
    orders = Orders(Role.SOURCE)
    orders.on(protocol.OpenSource, source.open)
    orders.on(protocol.KeepVolumes, lambda order: volume_marks.keep(order.migration, order.names))
    orders.on(protocol.SendImage, lambda order: send_image(order.reference, order.door, order.bandwidth))
    orders.on(protocol.LivePass, lambda _: source.live_pass())
    orders.on(protocol.SendLog, lambda order: source.send_log(order.name, order.behind))
    orders.on(protocol.PreDump, lambda order: source.pre_dump(order.name, order.port))
    orders.on(protocol.SlowDown, lambda _: source.slow_down())
    orders.on(protocol.GatherPages, lambda _: source.gather_pages())
    orders.on(protocol.ArmSource, source.arm)
    orders.on(protocol.RestartPolicy, lambda order: restart.policy(order.container))
    orders.on(protocol.Go, lambda _: Outcome(source.go()))
    orders.on(protocol.SourceDecided, lambda order: source.decided(order.outcome.value))
    orders.on(protocol.RemoveContainer, lambda _: source.remove_container())
    orders.on(protocol.CloseSource, lambda _: source.close())
    orders.on(protocol.Resume, resume)
    orders.on(protocol.Discard, lambda order: discard(order.migration, order.container))
    orders.serve(controller, source.close)
