"""The cutover at the destination: from the last images to the commit, and what follows it."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import (
    authenticated,
    breakpoints,
    cgroup,
    criu,
    inner_groups,
    interposed,
    messages,
    points,
    restart,
    restored_watches,
    sockets,
    task_settings,
    volume_marks,
)
from ..admission import Admission
from ..files import links
from ..files.flush import Flush
from ..files.log import TAIL, cut
from ..files.printing import Printer
from ..memory import rounds
from ..memory.lazy import LazyPagesDaemon
from ..memory.transfer import purpose
from ..network import bridge_port, sandbox
from ..network.lock import Lock, Unlocking
from ..points import Point
from ..protocol import Committed, Finished, Outcome, Waited
from ..routes import ROLLED_BACK
from ..wire import AgentError, Alive
from .afterwards import PORT
from .bundle import follow_links, has_own_cgroup_namespace, has_terminal, read, show_own_groups, write
from .console import Console
from .decision import ANSWER_TIMEOUT_S, Decision
from .restore import Restore
from .stand_in import StandIn
from .start import RESTORE_TIMEOUT_S, RESTORES, Start

if TYPE_CHECKING:
    from ..network.bridge_port import BridgePort
    from ..protocol import ArmDestination
    from ..trigger import Trigger
    from ..wire import Controller
    from .copy import Copy
    from .live import Live
    from .start import Paused

FLUSH_TIMEOUT_S = 10
PAGES_S = 1
"""Seconds that the source may take to connect for a post-copy's pages."""

NETWORK_DESCRIPTOR = 9
"""The number of the network namespace's descriptor in CRIU: see `armed/criu`."""


def arm(live: Live, copy: Copy, order: ArmDestination, controller: Controller) -> Armed:
    """Let Docker start the container, up to where images are needed. Detach its port from the bridge.

    Docker must not start it again before it has won, so it gets its restart policy only then. If anything fails, what
    was opened here is closed with `live`, and what was made is removed with `copy`.
    """
    held, container = live.resources, order.container
    flushed = Flush(live.order.trees.values())
    copy.container = container  # from now on this container is removed if it does not win
    held.callback(breakpoints.Ready().close)
    gateway = authenticated.Gateway(order.gateway, live.order.migration, ANSWER_TIMEOUT_S)
    held.callback(gateway.close)
    live.images.mkdir(exist_ok=True)
    (live.images / "descriptors.json").write_text(json.dumps(order.descriptors))
    work = RESTORES / container
    work.mkdir(parents=True, mode=0o700)
    held.callback(shutil.rmtree, work, ignore_errors=True)
    live.restores.append(work)
    pager = None
    if order.lazy:
        pager = LazyPagesDaemon(live.directory, live.images, work)
        copy.after.append(pager.stop)
    if interposed.obtainable():
        (work / "preload").write_text(f"{interposed.library('restore')}\n")
    (work / "options").write_text("--lazy-pages\n" if order.lazy else "")
    start = Start(container, work, pager)
    _closes_early(start.trigger, live, copy)
    if order.log is not None:
        cut(Path(order.log.path), order.log.marked)
    paused = start.begin()
    printer = None
    if order.log is not None:
        printer = Printer(container, terminal=has_terminal(read(paused.bundle)))
        _closes_early(printer, live, copy)
    paused, port = _connect(start, paused, order, live)
    made = paused.wrapper  # by now it is the ancestor of all that CRIU will make
    lock = Unlocking(
        Lock(str(work / "network"), shut=True), work, lambda: restored_watches.empty(criu.tree(made))
    )
    held.callback(lock.close)
    start.prepare(live.images)
    flushed.wait()
    armed = Armed(
        live,
        copy,
        controller,
        Restore(container, start, paused, printer, lock),
        Decision(gateway, controller, live.link, live.directory),
        port,
        order.address,
        restart.Policy(container, order.restart_policy),
    )
    armed.begin()
    return armed


def _closes_early(held: Trigger | Printer, live: Live, copy: Copy) -> None:
    """Close it before Docker's start is ended, since Docker waits for the end of both."""
    live.resources.callback(held.close)
    copy.before.append(held.close)


def _connect(start: Start, paused: Paused, order: ArmDestination, live: Live) -> tuple[Paused, BridgePort]:
    """Prepare the bundle for a restore and let Docker fill the network.

    Returns where the start waits now, and the container's bridge port, which is detached.
    """
    spec = read(paused.bundle)
    follow_links(spec)
    show_own_groups(spec)
    if has_own_cgroup_namespace(spec):
        start.make_cgroup_namespace(cgroup.named_in_bundle(spec["linux"]["cgroupsPath"])[0])
    network = sandbox.make(spec)
    live.resources.callback(network.close)
    by_hook = sandbox.fill_by_hook(spec, network)
    write(paused.bundle, spec)
    console = None
    if has_terminal(spec):
        interposed.library("restore")  # without it CRIU would make another terminal
        console = Console(spec)
        live.resources.callback(console.close)
        (start.work / "terminal").write_text(f"{console}\n")
    if not by_hook:
        interposed.library(
            "restore"
        )  # without it the restored process would not be the one that Docker knows
        stand_in = StandIn(network, spec)
        live.resources.callback(stand_in.end)
        paused = start.hand_over(paused, stand_in, console, live.resources)
    port = bridge_port.find(network.path, order.address, order.bridge)
    (start.work / PORT).write_text(port.port)
    port.detach()
    network.open()
    (start.work / "network").symlink_to(network.path)
    (start.work / "criu.conf").write_text(f"inherit-fd fd[{NETWORK_DESCRIPTOR}]:{criu.NETWORK}\n")
    return paused, port


class Armed:
    """The destination, ready for the last images. After `begin` a thread completes the cutover without a controller.

    =========== ============================================ ======================================================
    state       what happens                                 the copy
    =========== ============================================ ======================================================
    armed       the last images come, then all is restored   detached; any failure removes it
    restored    the gateway is asked                         detached until there is an outcome: see `Decision`
    rolled back the copy is given up                         is removed
    committed   bridge port attached, packets released       is kept, whatever fails later
    =========== ============================================ ======================================================
    """

    def __init__(
        self,
        live: Live,
        copy: Copy,
        controller: Controller,
        restore: Restore,
        decision: Decision,
        port: BridgePort,
        address: str,
        policy: restart.Policy,
    ) -> None:
        self._live, self._copy, self._controller = live, copy, controller
        self._restore, self._decision = restore, decision
        self._port, self._address, self._policy = port, address, policy
        self._pages: Admission | None = None
        self._sockets: sockets.Restored | None = None
        self._thread = threading.Thread(target=self._take_over, daemon=True, name="cutover")

    def begin(self) -> None:
        """Wait for the source's last images, and complete the cutover."""
        self._thread.start()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def read_ahead(self) -> None:
        """Read earlier images. A page server for the last dump is there, so all of them are."""
        self._restore.read_ahead()

    def read_pages(self) -> int:
        """Prepare for asking the source for pages (post-copy). Returns the port to which the source connects."""
        live = self._live
        self._pages = Admission(live.order.address, live.token, purpose(live.images.name))
        live.resources.callback(self._pages.close)
        return self._pages.port

    def _take_over(self) -> None:
        """From the last images to the commit. Any failure before the commit removes this copy."""
        step = "transfer"
        link = self._live.link
        alive: Alive | None = None
        try:
            sent = self._hear()
            alive = Alive(lambda: link.send(alive=True))
            flush = Flush(self._live.order.trees.values() if sent.files else ())
            self._receive(sent)
            step = "restore"
            self._run(sent)
            flush.wait(FLUSH_TIMEOUT_S)
            step = "network switch"
            self._switch()
        except Exception as failure:  # noqa: BLE001 - the other side waits for a message, whatever has failed
            if self._copy.kept:
                return
            with contextlib.suppress(OSError):
                link.send(failed=str(failure), step=getattr(failure, "step", None) or step)
            self._live.keep_logs()
            with contextlib.suppress(AgentError):  # `close` tries it again, and reports it
                self._copy.give_up()
        finally:
            if alive is not None:
                alive.end()

    def _hear(self) -> messages.Sent:
        """Receive output that was printed since the log was copied, several times; then the list of the last images."""
        link = self._live.link
        while (size := messages.printed(message := link.receive())) is not None:
            self._restore.print(link.receive_bytes(size))
            link.send(printed=True)
        points.passed(Point.SENT)
        return messages.sent(message, frozenset(self._live.order.trees))

    def _receive(self, sent: messages.Sent) -> None:
        live, images = self._live, self._live.images
        for name, size in sent.images:
            live.link.receive_file(images / name, size, criu.STANDSTILL_S)
        live.finish_page_server()
        pages = sum(path.stat().st_size for path in images.glob("pages-*.img"))
        live.link.send(phase="received", facts={"page_bytes": pages})
        points.passed(Point.RECEIVED)

    def _run(self, sent: messages.Sent) -> None:
        live, images = self._live, self._live.images
        links.make([links.Link(*link) for link in sent.links], live.order.trees)
        if (images / TAIL).exists():
            self._restore.print((images / TAIL).read_bytes())
        started_ns = time.monotonic_ns()
        if self._restore.is_lazy:
            rounds.leave_out(images)
            self._restore.begin_memory(self._pages.take(PAGES_S) if self._pages is not None else None)
        self._sockets = sockets.Restored(images)
        statistics = self._restore.run(sum(1 for _ in images.glob("mm-*.img")))
        self._sockets.put_back(self._restore.first_process)
        inner_groups.put_back(images, self._restore.first_process)
        task_settings.put_back(images, self._restore.first_process)
        took_ns = time.monotonic_ns() - started_ns
        live.link.send(phase="restored", facts={"restore_ns": took_ns, **statistics})
        points.passed(Point.RESTORED)
        self._restore.make_sure()

    def _switch(self) -> None:
        """Get the decision, and act on a commit."""
        if not self._decision.switch():
            why = f": {self._decision.refused}" if self._decision.refused else ""
            raise AgentError(f"the gateway had it {ROLLED_BACK}{why}", "network switch")
        self._copy.keep()
        facts = self._connect()
        self._live.link.send(phase="committed", facts=facts)
        points.passed(Point.COMMITTED)
        self._controller.event(Committed())

    def _connect(self) -> dict[str, int]:
        """After the commit, connect the container and let the rest of its memory come. Returns `held_packets`."""
        facts: dict[str, int] = {}
        self._restore.watch_memory()
        self._port.attach()
        self._port.resolve(self._address)
        # If the gateway dies now, it holds nothing either. If it can't be reached, the controller tells it to release.
        with contextlib.suppress(AgentError, OSError, ValueError):
            facts["held_packets"] = self._decision.release()
        self._restore.complete_memory()
        if self._sockets is not None:
            self._sockets.late()
        return facts

    def decided(self, outcome: Outcome) -> None:
        """Take the gateway's outcome from the controller. After that only one more question goes to the gateway."""
        if outcome is not Outcome.UNDECIDED:
            self._decision.tell(outcome.value, interrupt=not self._copy.kept)

    def finish(self) -> Finished:
        """After the commit, wait until Docker has noticed the start, and report the container's state."""
        volume_marks.arrive(self._live.order.migration)
        state = self._restore.finish()
        self._policy.put_back()
        waited = self._restore.waited
        health = state.get("Health", {}).get("Status")
        return Finished(state["Status"], state["Pid"], health, Waited(**waited) if waited else None)

    def end(self, *, called_off: bool) -> None:
        """Wait for the end of the cutover. If the copy is kept, wait until it has its volumes and all memory.

        `called_off`: the gateway has told the caller that it was rolled back. AgentError if the gateway still does not
        answer.
        """
        if self._thread.is_alive():
            self._live.link.close()
            if called_off:
                self.decided(Outcome.ROLLED_BACK)
            self._thread.join(RESTORE_TIMEOUT_S + 10)
            if self._thread.is_alive():
                raise AgentError("it still asks the gateway whether the container is to run here", "finish")
        self._decision.stop_asking()
        if self._copy.kept:
            volume_marks.arrive(self._live.order.migration)
            self._restore.stay()

    def put_policy_back(self) -> None:
        """Let Docker restart the kept copy by its owner's policy from now on."""
        if self._copy.kept:
            self._policy.put_back()
