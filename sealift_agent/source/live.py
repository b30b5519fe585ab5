"""Before the freeze: files, images and memory go to the destination while the container runs."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import brake, cgroup, criu, docker_api, dumps, interposed, messages, restart
from ..files import watches
from ..files.log import PIECE_BYTES, Log
from ..files.rsync import Sender, View
from ..images import dump_stats
from ..memory import hugepages, pipes, zstd
from ..memory.transfer import Outgoing
from ..protocol import Dumped, LogSent
from ..wire import AgentError, Link, watched
from .dump import INHERITED

if TYPE_CHECKING:
    from ..protocol import OpenSource

PRINTED_S = 5
"""How long what was printed may take to be printed again at the destination, before the freeze."""


class Live:
    """A migration whose hosts are connected, from `open` to `close`. The container runs, unless `cutover` has it.

    `resources` are what is closed with it, the last one first: whatever a later phase opens is put there as well, so
    that nothing stays of a phase that was not reached. `policy` is the container's restart policy, which a later phase
    suspends. `parent` names the last pre-dump: the next dump has what changed since.
    """

    def __init__(self, order: OpenSource) -> None:
        """Connect to the destination and prepare to dump. AgentError, and nothing is left, if that fails."""
        if order.compress:
            zstd.require()
        peer = order.peer
        self.order = order
        self.parent: str | None = None
        self.policy = restart.Policy(order.container)
        self.log = Log(order.log) if order.log else None
        with contextlib.ExitStack() as opened:
            self.directory, lock = dumps.make(order.migration)
            opened.callback(pipes.put_back, order.migration)
            opened.callback(dumps.wipe, self.directory, lock)
            (self.directory / dumps.CONTAINER).write_text(order.container)
            self.sender = Sender(
                peer.address,
                peer.rsync_port,
                peer.password,
                order.trees,
                self.directory,
                order.bandwidth,
                self._view,
            )
            opened.callback(self.sender.close)
            if self.log is not None:
                opened.callback(self.log.close)
            try:
                self.link = Link.connect(peer.address, peer.port, peer.token)
            except OSError as silent:
                raise AgentError(
                    f"no answer from {peer.address} through the tunnel: {silent}", "sync"
                ) from silent
            opened.callback(self.link.close)
            self.descriptors = criu.descriptors(order.container)
            self.resources = opened.pop_all()

    @property
    def images(self) -> Path:
        """Where the last dump's images are."""
        return self.directory / "final"

    @property
    def first_process(self) -> int:
        """The container's."""
        return int(docker_api.call("GET", f"/containers/{self.order.container}/json")["State"]["Pid"])

    def _view(self) -> View:
        pid = self.first_process
        return View(Path(f"/proc/{pid}/root"), cgroup.pids(cgroup.of_process(pid)))

    def live_pass(self) -> int:
        """Send the files that differ. Returns the bytes sent."""
        with self.watched(self.order.peer.rsync_port):
            return self.sender.live_pass()

    def send_log(self, name: str, behind: int = -1) -> LogSent | None:
        """Send what the container has printed so far, as `name`; the mark up to which it counts.

        None if there is no log, or no more than `behind` bytes were printed since the last mark.
        """
        if self.log is None or self.log.behind() <= behind:
            return None
        marked = self.log.mark()
        files = {path: f"{name}{ending}" for path, ending in self.log.files().items()}
        with self.watched(self.order.peer.rsync_port):
            return LogSent(marked, self.sender.copy("log", files))

    def print_again(self) -> None:
        """What was printed since the mark is printed at the destination, before the freeze: little is left to it.

        AgentError where the container prints faster than the destination's Docker takes it.
        """
        deadline = time.monotonic() + PRINTED_S
        while self.log is not None and (piece := self.log.take()):
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

    def watched(self, *ports: int) -> contextlib.AbstractContextManager[None]:
        """While others send to these ports of the destination: they don't outlast it."""
        return watched(self.link, self.order.peer.address, ports)

    def pre_dump(self, name: str, port: int) -> Dumped:
        """One round: the pages dirtied since the last one, straight to the destination's page server.

        `whole` in the answer says why writes to huge pages count for all of them, if they do.
        """
        images = self.directory / name
        outgoing = self.outgoing(port, name, rate=self.order.bandwidth)
        try:
            whole = self._pre_dump(images, port, outgoing)
        finally:
            outgoing.close()
        self.parent = name
        return Dumped(dump_stats(images), outgoing.sent().get("packed_bytes", 0), whole)

    def outgoing(self, port: int, name: str, rate: int | None = None, *, plain: bool = False) -> Outgoing:
        """What takes the pages of a dump to the destination's port for them; as they are if they follow later."""
        order = self.order
        where = (order.peer.address, port)
        if plain:
            return Outgoing(where, order.peer.token, name)
        return Outgoing(
            where, order.peer.token, name, rate=rate, compress=order.compress, streams=order.streams
        )

    def _pre_dump(self, images: Path, port: int, outgoing: Outgoing) -> str | None:
        pids = cgroup.pids(cgroup.of_process(self.first_process))
        whole = hugepages.split(pids)
        settings = self.directory / "pre-dump.conf"
        settings.write_bytes(os.fsencode(watches.settings(pids) + outgoing.settings))
        env = {**interposed.environment(), criu.SETTINGS: str(settings)}
        options = ["--pre-dump", *INHERITED, *self.on_top]
        dump = criu.checkpoint(
            self.order.container, images, *options, env=env, pass_fds=[outgoing.descriptor]
        )
        outgoing.hand_over()
        with self.watched(port), outgoing.pushed():
            criu.finish(dump, "pre-dump", images / "dump.log")
        return whole

    @property
    def on_top(self) -> list[str]:
        """Runc's words for a dump that has only what changed since the last one."""
        return ["--parent-path", f"../{self.parent}"] if self.parent else []

    def slow_down(self) -> float | None:
        """Halve what the container uses of the CPUs, until `put_quota_back`.

        Returns how many it may use; None if it is at the least.
        """
        return brake.slow_down(self.directory, self.first_process)

    def gather_pages(self) -> int:
        """Put small pages together, which makes the dump of a post-copy shorter. Returns the bytes in huge pages."""
        return hugepages.gather(cgroup.pids(cgroup.of_process(self.first_process)))

    def put_quota_back(self) -> None:
        """The container may use of the CPUs what it could before `slow_down`."""
        brake.put_back(self.directory)

    def release(self) -> None:
        """The container goes on here, as if nothing had happened: its quota and its restart policy are back."""
        self.put_quota_back()
        self.policy.put_back()

    def close(self) -> None:
        """Nothing is left of the migration here, whatever phase it has come to."""
        self.resources.close()
