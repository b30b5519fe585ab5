"""The destination: takes pages, images and files; restores under Docker; asks the gateway for the address.

Docker's own start of the container is under way before the source freezes: it hangs in the runtime wrapper, which waits
at a pipe for the word that the images are there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import (
    authenticated,
    breakpoints,
    cgroup,
    criu,
    docker_api,
    dumps,
    messages,
    points,
    proc,
    protocol,
    restart,
    volume_marks,
)
from .admission import Admission
from .files import links
from .files.flush import Flush
from .files.log import TAIL, cut
from .files.printing import Printer
from .files.rsync import Daemon
from .images import restore_stats
from .memory import rounds
from .memory.lazy import Filler
from .memory.transfer import Incoming, purpose
from .network import bridge_port, sandbox
from .orders import Orders
from .points import Point
from .protocol import Armed, Door, Finished, Peer, Role
from .routes import COMMITTED, ROLLED_BACK
from .shim import Shim, kill_shim
from .trigger import Trigger, let_go
from .wire import WAITING, AgentError, Alive, Controller, Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .protocol import ArmDestination, Complete

RESTORES = Path("/run/sealift/restore")
RESTORE_TIMEOUT_S = 100
CREATED_S = 5
FLUSH_TIMEOUT_S = 10
REMOVE_TIMEOUT_S = 30
AT_FIRST_S = 8
"""How long Docker may take to remove a copy before what may keep it from that is killed."""

BY_ITSELF_S = 2
"""How long a runc may take to end once its CRIU has been killed."""

FILL_TIMEOUT_S = 600
ASK_AGAIN_S = 1
SOURCE_S, IMAGE_S = 30, 60
"""How long the source may take to connect."""

DOUBT_S = 10
"""A gateway whose agent was killed has another one by then."""

NETWORK_DESCRIPTOR = 9
"""CRIU gets the network namespace as this one: see `armed/criu`."""


class Destination:
    """One migration, seen from where the container goes."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.container: str | None = None
        self.volumes: dict[str, str] = {}
        self.migration = ""
        self.daemon: Daemon | None = None
        self.cutover: threading.Thread | None = None
        self.committed = False
        self.told: str | None = None
        self.refused: str | None = None
        self.start_error: str | None = None
        self.shim: Shim | None = None
        self.bridge_port: bridge_port.BridgePort | None = None
        self.incoming: Incoming | None = None
        self.reading: Admission | None = None
        self.trigger: Trigger | None = None
        self.printer: Printer | None = None
        self.sandbox: sandbox.Sandbox | None = None
        self.filler: Filler | None = None
        self.breakpoints: breakpoints.Ready | None = None
        self.restart: dict[str, Any] | None = None

    def prepare(self, migration: str, address: str, trees: dict[str, str]) -> Peer:
        """Open the doors of this migration, all on the tunnel address. Returns where they are."""
        self.migration = migration
        self.address = address
        self.trees = trees
        self.token = secrets.token_hex(16)
        self.directory, self.lock = dumps.make(migration)
        password = secrets.token_hex(16)
        self.daemon = Daemon(self.directory, address, password, trees)
        self.admission = Admission(address, self.token)
        return Peer(address, self.admission.port, self.token, password, self.daemon.port)

    def receive_image(self, address: str) -> Door:
        """Take one image from the source and load it. Returns where the source is to send it."""
        token = secrets.token_hex(16)
        admission = Admission(address, token)
        threading.Thread(target=_load_image, args=(admission,), daemon=True).start()
        return Door(address, admission.port, token)

    def start_page_server(
        self, name: str, previous: str | None, compress: bool = False, streams: int = 1
    ) -> int:
        """A page server for the next dump, on top of the previous one's images. Returns the port that takes its pages.

        With `compress` it expects pages as `relay.packed` sends them, with several `streams` over so many connections.
        """
        self.finish_page_server()
        parent = self.directory / previous if previous else None
        self.incoming = Incoming(
            self.address, self.token, self.directory / name, parent, compress=compress, streams=streams
        )
        if self.filler is not None:
            self.filler.read_ahead()
        return self.incoming.port

    def read_pages(self) -> int:
        """Pages will be asked for at the source (post-copy). Returns the port where it is to connect for that."""
        self.reading = Admission(self.address, self.token, purpose(self.images.name))
        return self.reading.port

    def finish_page_server(self) -> None:
        """Wait for the page server of the last dump."""
        if self.incoming is not None:
            incoming, self.incoming = self.incoming, None
            incoming.finish()

    def arm(self, order: ArmDestination) -> Armed:
        """Start the container under Docker up to where the images are needed; detach its port from the bridge.

        Until it has won Docker must not start it again if it ends: it gets its restart policy then. See
        `ArmDestination`.
        """
        container, bridge, gateway = order.container, order.bridge, order.gateway
        flushed = Flush(self.trees.values())
        self.container = container
        self.restart = order.restart_policy
        self.workload = order.address
        self.gateway = gateway
        self.breakpoints = breakpoints.Ready()
        self.decider = Link.connect(gateway.address, gateway.port, gateway.token)
        self.restore = RESTORES / container
        self.images = self.directory / "final"
        self.images.mkdir(exist_ok=True)
        (self.images / "descriptors.json").write_text(json.dumps(order.descriptors))
        self.restore.mkdir(parents=True, mode=0o700)
        self.filler = Filler(self.directory, self.images, self.restore) if order.lazy else None
        (self.restore / "options").write_text("--lazy-pages\n" if order.lazy else "")
        self.trigger = Trigger(self.restore, "restore")
        if order.log is not None:
            cut(Path(order.log.path), order.log.marked)
        with _alone():
            others = bridge_port.unclaimed(bridge)
            self.starter = threading.Thread(target=self._start, daemon=True)
            self.starter.start()
            self.trigger.wait("waiting", self._complaint)
            process, bundle = (self.restore / "waiting").read_text().splitlines()
            self.wrapper = int(process)
            self.shim = Shim(container, Path(bundle))
            self.printer = Printer(container) if order.log is not None else None
            # Docker moves the other end of the veth pair into the container only when runc calls its hook.
            mine = bridge_port.unclaimed(bridge) - others
        if len(mine) != 1:
            raise AgentError(
                f"{len(mine)} new ports in the bridge {bridge}: which is the container's?", "restore"
            )
        self.bridge_port = bridge_port.BridgePort(mine.pop(), bridge)
        self.bridge_port.detach()
        self._put_in_order(Path(bundle) / "config.json")
        self.trigger.say(str(self.images))
        self.trigger.wait("ready", self._complaint)
        flushed.wait()
        self.cutover = threading.Thread(target=self._take_over, daemon=True)
        self.cutover.start()
        return Armed(self.sandbox is not None)

    def _put_in_order(self, config: Path) -> None:
        """Make a bundle fit for a restore, with its network filled beforehand where that can be had."""
        spec = json.loads(config.read_text())
        follow_links(spec)
        self.sandbox = sandbox.fill(spec)
        config.write_text(json.dumps(spec))
        settings = ""
        if self.sandbox is not None:
            (self.restore / "network").symlink_to(self.sandbox.path)
            settings = f"inherit-fd fd[{NETWORK_DESCRIPTOR}]:{criu.NETWORK}\n"
        (self.restore / "criu.conf").write_text(settings)

    def accept(self) -> None:
        """Wait for the source's connection."""
        try:
            self.link = Link(self.admission.take(SOURCE_S))
        except OSError as nobody:
            raise AgentError(f"the source has not connected: {nobody}", "sync") from nobody

    def _start(self) -> None:
        try:
            docker_api.call("POST", f"/containers/{self.container}/start", timeout=24 * 3600)
        except AgentError as failure:
            self.start_error = str(failure)

    def _complaint(self) -> str | None:
        if self.filler is not None and self.filler.has_died():
            return self.filler.reason()
        if self.start_error is None:
            return None
        why = criu.reason(self.restore / "restore.log")
        said = criu.reason(self.restore / "complaints")
        return why or (f"{self.start_error} ({said})" if said else self.start_error)

    def _take_over(self) -> None:
        """The cutover, from the last images to the commit. Before the commit, any failure gives up this copy."""
        step = "transfer"
        alive: Alive | None = None
        try:
            images = self.images
            while (size := messages.printed(message := self.link.receive())) is not None:
                self._print(self.link.receive_bytes(size))
                self.link.send(printed=True)
            points.passed(Point.SENT)
            sent = messages.sent(message, frozenset(self.trees))
            alive = Alive(lambda: self.link.send(alive=True))
            flush = Flush(self.trees.values() if sent.files else ())
            for name, size in sent.images:
                self.link.receive_file(images / name, size, criu.STANDSTILL_S)
            self.finish_page_server()
            pages = sum(path.stat().st_size for path in images.glob("pages-*.img"))
            self.link.send(phase="received", facts={"page_bytes": pages})
            points.passed(Point.RECEIVED)
            step = "restore"
            links.make([links.Link(*link) for link in sent.links], self.trees)
            if (images / TAIL).exists():
                self._print((images / TAIL).read_bytes())
            started_ns = time.monotonic_ns()
            if self.filler is not None:
                rounds.leave_out(images)
                self.filler.begin(self.reading.take(ASK_AGAIN_S) if self.reading is not None else None)
            self._restore()
            took_ns = time.monotonic_ns() - started_ns
            self.link.send(phase="restored", facts={"restore_ns": took_ns, **restore_stats(self.restore)})
            points.passed(Point.RESTORED)
            self._make_sure(step)
            flush.wait(FLUSH_TIMEOUT_S)
            step = "network switch"
            if not self._switch():
                why = f": {self.refused}" if self.refused else ""
                raise AgentError(f"the gateway had it {ROLLED_BACK}{why}", step)
            self.committed = True
            facts = self._connect()
            self.link.send(phase="committed", facts=facts)
            points.passed(Point.COMMITTED)
            self.controller.event("committed")
        except Exception as failure:  # noqa: BLE001 - the other side waits for a word, whatever went wrong
            if self.committed:
                return
            with contextlib.suppress(OSError):
                self.link.send(failed=str(failure), step=getattr(failure, "step", None) or step)
            with contextlib.suppress(AgentError):  # tried again, and said, by `close`
                self._give_up()
        finally:
            if alive is not None:
                alive.end()

    def _print(self, lines: bytes) -> None:
        if self.printer is not None:
            self.printer.print(lines)

    def _restore(self) -> None:
        """Have CRIU begin, and wait until all runs. AgentError also for one that stands still: a client waits."""
        assert self.trigger is not None  # noqa: S101 - `arm` came before
        helpers = [] if self.filler is None else [self.filler.pid]
        progress = criu.Progress(self.restore / "restore.log", self.wrapper, *helpers)

        def complaint() -> str | None:
            still = f"CRIU has stood still for {criu.STANDSTILL_S} s while it restored the container"
            return self._complaint() or (still if progress.stands_still() else None)

        self.trigger.say("go")
        points.passed(Point.RESTORING)
        self.trigger.wait("restored", complaint, RESTORE_TIMEOUT_S)

    def _make_sure(self, step: str) -> None:
        """The last look before the decision: memory can come in behind, and Docker still knows of its start.

        The shim has the container by now, so that a dockerd that dies from here on can't take it along.
        """
        if self.filler is not None:
            self.filler.guard()
        deadline = time.monotonic() + CREATED_S
        while self.start_error is None and self.shim is not None and self.shim.is_creating():
            if time.monotonic() > deadline:
                raise AgentError(f"containerd's shim has not created it after {CREATED_S} s", step)
            time.sleep(0.0005)
        if self.start_error is not None:
            raise AgentError(self.start_error, step)
        if self.printer is not None:
            self.printer.close()

    def _connect(self) -> dict[str, int]:
        """After the commit: the container is reached, and the rest of its memory may come. Returns `held_packets`."""
        facts: dict[str, int] = {}
        if self.filler is not None:
            self.filler.watch(self._end_incomplete)
        assert self.bridge_port is not None  # noqa: S101 - `arm` has found it
        self.bridge_port.attach()
        self.bridge_port.introduce(self.workload)
        # A gateway that dies now holds nothing either; one that can't be reached lets go when the controller says so.
        with contextlib.suppress(AgentError, OSError, ValueError):
            facts["held_packets"] = messages.held(self._ask_gateway("release"))
        if self.filler is not None:
            self.filler.run()
        return facts

    def _end_incomplete(self) -> None:
        """Memory that can't be completed: ended like a process that crashed, instead of going on with zeroes."""
        with contextlib.suppress(AgentError):
            docker_api.call("POST", f"/containers/{self.container}/kill", accept=(204, 404, 409))

    def _switch(self) -> bool:
        """Ask for the address until there is an outcome on record; whether it is this side's.

        Who asked and got no answer may have won, and so may who got an error: that is never a no. After one this side
        asks to have it called off, and does what the record says then.

        The others of a group may take their time: their source sees to it that this comes to an end. A doubt that stays
        is told to the source, which then asks for the other outcome instead of staying frozen.
        """
        doubted = time.monotonic() + DOUBT_S
        while self.told is None:
            try:
                answer = self._ask_gateway("call_off" if self.refused else "switch")
            except Exception as lost:  # noqa: BLE001 - whatever it is, it is no answer
                self._doubt(f"the gateway does not answer: {lost}", tell=time.monotonic() > doubted)
                continue
            outcome = answer.get("outcome")
            if outcome in {COMMITTED, ROLLED_BACK}:
                return bool(outcome == COMMITTED)
            if outcome == WAITING:
                doubted = time.monotonic() + DOUBT_S
                continue
            refusal = str(answer.get("error", f"it said {outcome!r}"))
            if self.refused:
                self._doubt(f"the gateway gives no outcome: {refusal}", tell=time.monotonic() > doubted)
            self.refused = self.refused or refusal
        return self.told == COMMITTED

    def _doubt(self, why: str, *, tell: bool) -> None:
        """No outcome yet: say so, to the source too if it has lasted, and get ready to ask again."""
        self.told = self.told or dumps.told(self.directory)
        if self.told is not None:  # `decided` has closed the connection
            return
        self.controller.event("undecided", reason=why)
        if tell:
            with contextlib.suppress(OSError):
                self.link.send(failed=why, step="network switch")
        time.sleep(ASK_AGAIN_S)
        with contextlib.suppress(OSError, AgentError):
            self.decider.close()
            self.decider = Link.connect(
                self.gateway.address, self.gateway.port, self.gateway.token, timeout=10
            )

    def decided(self, outcome: str) -> None:
        """The controller has it from the gateway: a destination that can't reach the gateway need not go on asking."""
        self.told = outcome
        if not self.committed:  # else it has heard, and has one more thing to ask
            self.decider.close()

    def _ask_gateway(self, question: str) -> dict[str, Any]:
        return authenticated.ask(self.decider, self.gateway.key, self.migration, question, 30)

    def _give_up(self) -> None:
        """Remove the copy that did not win."""
        for held in (self.trigger, self.printer):  # Docker waits for the end of what is printed
            if held is not None:
                held.close()
        if self.container is not None:
            remove_copy(self.container, self.volumes)
            if self.bridge_port is not None:
                self.bridge_port.delete()
        for volume, created in self.volumes.items():
            remove_volume(volume, created)
        volume_marks.give_back(self.migration)
        self.container, self.volumes = None, {}
        if self.filler is not None:
            self.filler.stop()

    def adopt(self, container: str | None, volumes: dict[str, str]) -> None:
        """Volumes, and then a container, were created for this migration: they go again if it does not commit.

        `volumes` maps names to when Docker says it created them. Returns once the container is on the disk: of one
        whose description a loss of power took, Docker would know nothing afterwards, and its directories would stay.
        """
        self.container = container
        self.volumes = volumes
        if container is not None:
            described = docker_api.call("GET", f"/containers/{container}/json")
            Flush([described["GraphDriver"]["Data"]["UpperDir"]]).wait()

    def take_volumes(self, migration: str, lineages: dict[str, str], created: list[str]) -> None:
        """Before the first byte comes: see `volume_marks.take`."""
        self.migration = migration
        volume_marks.take(migration, lineages, created)

    def finish(self) -> Finished:
        """After the commit: wait for Docker to have noticed, and look at the container."""
        volume_marks.arrive(self.migration)
        self.starter.join(60)
        if self.filler is not None:
            self.filler.wait(FILL_TIMEOUT_S)
        state = self._end_start()
        if self.start_error and not state["Running"]:
            raise AgentError(f"Docker reports the restored container as failed: {self.start_error}", "finish")
        self._give_policy()
        return Finished(state["Status"], state["Pid"], state.get("Health", {}).get("Status"))

    def _give_policy(self) -> None:
        """The container has won: from now on Docker starts it again as its owner wished."""
        assert self.container is not None  # noqa: S101 - `arm` came before
        if self.restart is not None:
            restart.put_back(self.container, self.restart)
            self.restart = None

    def _end_start(self) -> dict[str, Any]:
        """What Docker says of the container. A start that a dockerd which died has forgotten is ended."""
        assert self.container is not None  # noqa: S101 - `arm` came before
        return _started(self.container, self.shim)

    def close(self, called_off: bool = False) -> None:
        """Forget the migration: doors shut, images wiped; without a commit, the copy goes too.

        `called_off` is said by who has it from the gateway: then nothing needs to be asked any more.
        """
        self._end_cutover(called_off=called_off)
        if hasattr(self, "decider"):
            self.decider.close()
        if self.committed:
            self._stay()
        else:
            self._give_up()
        for pages in (self.incoming, self.reading):
            if pages is not None:
                pages.close()
        self.incoming = self.reading = None
        if self.daemon is not None:
            self.daemon.stop()
            self.daemon = None
            self.admission.close()
            dumps.wipe(self.directory, self.lock)
        for held in (self.trigger, self.printer, self.sandbox, self.breakpoints):
            if held is not None:
                held.close()
        if hasattr(self, "restore"):
            shutil.rmtree(self.restore, ignore_errors=True)
        if self.committed:
            self._give_policy()

    def _stay(self) -> None:
        """The copy here has won: its volumes are its own, its memory complete, and Docker's start of it over."""
        volume_marks.arrive(self.migration)
        self._await_memory()
        if self.start_error:
            with contextlib.suppress(AgentError):  # said by `finish`
                self._end_start()

    def _end_cutover(self, *, called_off: bool) -> None:
        if self.cutover is None or not self.cutover.is_alive():
            return
        self.link.close()
        if called_off:
            self.decided("rolled back")
        self.cutover.join(RESTORE_TIMEOUT_S + 10)
        if self.cutover.is_alive():
            raise AgentError("it still asks the gateway whether the container is to run here", "finish")

    def _await_memory(self) -> None:
        """Images are needed until the memory is complete, or lost for good."""
        if self.filler is not None:
            with contextlib.suppress(AgentError):  # said by `finish`
                self.filler.wait(None)

    def gone(self) -> None:
        """The controller is gone: what was armed is decided between the hosts, then everything is put away."""
        if self.cutover is not None:
            self.cutover.join()
        self.close()


def remove_copy(container: str, volumes: dict[str, str]) -> None:
    """Remove a container that was made for a migration, however far it has come, and its volumes.

    A volume that was created at another time than noted is somebody else's of the same name.
    """
    restore = RESTORES / container
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    timeout_s = AT_FIRST_S
    while True:
        if not (restore / "restored").exists():
            let_go(restore)
            # It traces the processes that it restores. Were they killed under its hands, both would wait for ever.
            _kill_restore(restore)
        try:
            docker_api.call(
                "DELETE", f"/containers/{container}?force=1&v=1", timeout=timeout_s, accept=(204, 404)
            )
            break
        except AgentError:
            if time.monotonic() > deadline:
                raise
            if timeout_s == AT_FIRST_S:  # Docker does nothing with a container whose start hangs
                _end_start(container, restore)
                timeout_s = REMOVE_TIMEOUT_S
            time.sleep(0.1)
    _end_restore(restore)
    criu.clear_restore(container)
    for volume, created in volumes.items():
        remove_volume(volume, created)
    shutil.rmtree(restore, ignore_errors=True)


def _kill_restore(restore: Path) -> None:
    """Kill CRIU and what it has begun to restore, also where all of it is frozen.

    runc freezes a group that it kills (version 1), and may be killed itself before it has thawed it.
    """
    for pid in criu.kill_criu(restore):
        with contextlib.suppress(OSError):  # it has ended
            group = cgroup.of_process(pid)
            if cgroup.is_frozen(group):
                cgroup.thaw(group)


def _end_restore(restore: Path) -> None:
    """Docker has removed the container: a runc that still restores it is ended. AgentError if it does not end."""
    began = time.monotonic()
    while runcs := [pid for pid in dumps.workers(restore) if proc.stat(pid)[0].startswith("runc")]:
        _kill_restore(restore)
        waited_s = time.monotonic() - began
        if waited_s > BY_ITSELF_S:
            for pid in runcs:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if waited_s > REMOVE_TIMEOUT_S:
            raise AgentError("runc, which restores the container, does not end", "finish")
        time.sleep(0.02)


def _end_start(container: str, restore: Path) -> None:
    """Kill all that a start of the container waits for: runc and what stands in for it, then its shim."""
    dumps.kill_workers(restore)
    kill_shim(container)


def follow_links(spec: dict[str, Any]) -> None:
    """Name the sources of a bundle's bind mounts by their real paths: runc follows links, but CRIU binds the link.

    Debian's /usr/bin/docker-init, which `docker run --init` mounts, is one.
    """
    for mount in spec["mounts"]:
        if mount["type"] == "bind":
            mount["source"] = os.path.realpath(mount["source"])


def remove_volume(name: str, created: str) -> None:
    """Remove a volume, if it is the one that was created then."""
    if (there := volume_marks.described_volume(name)) is not None and there["CreatedAt"] == created:
        docker_api.call("DELETE", f"/volumes/{name}", accept=(204, 404))


def sweep(migration: str, container: str, volumes: dict[str, str]) -> None:
    """After an agent that was killed, and a decision against the migration: nothing of it stays."""
    with dumps.abandoned(migration, ROLLED_BACK, kill=True) as directory:
        if container:
            remove_copy(container, volumes)
        volume_marks.give_back(migration)
        dumps.kill_workers(directory)


def sweep_unnamed(migration: str, name: str, image: str, volumes: list[str]) -> None:
    """The same where nobody wrote down what was created: a container of that name and image, if it never ran.

    Of the volumes, those that are empty.
    """
    try:
        found = docker_api.call("GET", f"/containers/{name}/json")
    except docker_api.NotThere:
        found = None
    mine = found is not None and found["State"]["Status"] == "created" and found["Image"] == image
    there = {
        volume: described
        for volume in volumes
        if (described := volume_marks.described_volume(volume)) is not None
    }
    empty = {
        volume: described["CreatedAt"]
        for volume, described in there.items()
        if not any(Path(described["Mountpoint"]).iterdir())
    }
    sweep(migration, found["Id"] if found and mine else "", {})
    for volume, created in empty.items():
        remove_volume(volume, created)


def _started(container: str, shim: Shim | None) -> dict[str, Any]:
    """What Docker says of a container after its commit, once a start that it has forgotten has been ended."""
    state: dict[str, Any] = docker_api.call("GET", f"/containers/{container}/json")["State"]
    if state["Status"] == "created" and shim is not None and shim.end_start():
        state = docker_api.call("GET", f"/containers/{container}/json")["State"]
    return state


def complete(order: Complete) -> str:
    """After an agent that was killed, and a decision for the migration: the container is reached here.

    Once all of its memory is in, its images and marks go, and it has its restart policy. Returns what Docker says of
    it.
    """
    container = order.container
    with dumps.abandoned(order.migration, COMMITTED) as directory:
        volume_marks.arrive(order.migration)
        shim = None
        with contextlib.suppress(OSError, ValueError):
            _, bundle = (RESTORES / container / "waiting").read_text().splitlines()
            shim = Shim(container, Path(bundle))
        state = _started(container, shim)
        if state["Pid"]:
            port = bridge_port.find(f"/proc/{state['Pid']}/ns/net", order.address, order.bridge)
            port.attach()
            port.introduce(order.address)
        deadline = time.monotonic() + FILL_TIMEOUT_S
        while dumps.workers(directory):
            if time.monotonic() > deadline:
                raise AgentError(f"memory was not complete after {FILL_TIMEOUT_S} s", "finish")
            time.sleep(0.05)
        shutil.rmtree(RESTORES / container, ignore_errors=True)
        restart.put_back(container, order.restart_policy)
    return str(state["Status"])


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One arming at a time on this host: what is new in the bridge is this container's."""
    RESTORES.mkdir(parents=True, exist_ok=True)
    with (RESTORES / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _load_image(admission: Admission) -> None:
    with admission:
        try:
            link = Link(admission.take(IMAGE_S))
        except OSError:
            return  # the source says why
    try:
        headers = {"Content-Type": "application/x-tar"}  # of unknown length: http.client sends it in chunks
        connection, response = docker_api.request("POST", "/images/load?quiet=1", link.rest(), 600, headers)
        answer = response.read().decode(errors="replace")
        connection.close()
        if response.status != 200 or '"error"' in answer:
            link.send(error=f"Docker refuses to load the image: {answer[-300:]}")
        else:
            link.send(loaded=True)
    except (AgentError, OSError) as failure:
        link.send(error=str(failure))
    finally:
        link.close()


def main(controller: Controller) -> None:
    """Serve one controller for one migration."""
    destination = Destination(controller)
    orders = Orders(Role.DESTINATION)
    orders.on(
        protocol.Prepare, lambda order: destination.prepare(order.migration, order.address, order.trees)
    )
    orders.on(protocol.ReceiveImage, lambda order: destination.receive_image(order.address))
    orders.on(
        protocol.StartPageServer,
        lambda order: destination.start_page_server(
            order.name, order.previous, order.compress, order.streams
        ),
    )
    orders.on(protocol.ReadPages, lambda _: destination.read_pages())
    orders.on(protocol.FinishPageServer, lambda _: destination.finish_page_server())
    orders.on(protocol.Adopt, lambda order: destination.adopt(order.container, order.volumes))
    orders.on(
        protocol.TakeVolumes,
        lambda order: destination.take_volumes(order.migration, order.lineages, order.created),
    )
    orders.on(protocol.Accept, lambda _: destination.accept())
    orders.on(protocol.ArmDestination, destination.arm)
    orders.on(protocol.DestinationDecided, lambda order: destination.decided(order.outcome.value))
    orders.on(protocol.Finish, lambda _: destination.finish())
    orders.on(protocol.CloseDestination, lambda order: destination.close(called_off=order.called_off))
    orders.on(protocol.SweepCopy, lambda order: sweep(order.migration, order.container, order.volumes))
    orders.on(
        protocol.SweepUnnamed,
        lambda order: sweep_unnamed(order.migration, order.name, order.image, order.volumes),
    )
    orders.on(protocol.Complete, complete)
    orders.serve(controller, destination.gone)
