"""Before the freeze: files, images and memory go to the destination while the container runs."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import brake, cgroup, criu, docker_api, dumps, interposed, messages, restart
from ..files.log import PIECE_BYTES, Log
from ..files.rsync import Sender, View
from ..images import dump_stats
from ..interrupted import Interrupted
from ..memory import hugepages, pipes, zstd
from ..memory.transfer import Outgoing
from ..protocol import Dumped, LogSent
from ..wire import AgentError, Link, watched
from .dump import INHERITED

if TYPE_CHECKING:
    from ..protocol import OpenSource

PRINTED_S = 5
"""Seconds that old output may take to be printed at the destination, before the freeze."""


class Live:
    """A migration whose hosts are connected, from `open` to `close`. The container runs, except during the cutover.

    `resources` are closed with it in reverse order. Later phases add what they open, so that everything is closed if a
    phase fails. `policy` is the container's restart policy, which a later phase suspends. `parent` names the last
    pre-dump: the next dump has only what changed since.
    """

    def __init__(self, order: OpenSource) -> None:
        """Connect to the destination and prepare to dump.

        If this fails, everything is removed, and AgentError raised.
        """
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
            self.interrupted = Interrupted()
            self.resources = opened.pop_all()

    @property
    def images(self) -> Path:
        """The directory of the last dump's images."""
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
        """Send the container's output so far, as the file `name`. Returns the mark up to which it goes.

        None if there is no log, or if at most `behind` bytes were printed since the last mark.
        """
        if self.log is None or self.log.behind() <= behind:
            return None
        marked = self.log.mark()
        files = {path: f"{name}{ending}" for path, ending in self.log.files().items()}
        with self.watched(self.order.peer.rsync_port):
            return LogSent(marked, self.sender.copy("log", files))

    def print_again(self) -> None:
        """Print output since the mark again at the destination, so that little of it is left for the freeze.

        AgentError if the container prints faster than the destination's Docker can read.
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
        """Within a block, other programs send to these ports of the destination. They are ended with it."""
        return watched(self.link, self.order.peer.address, ports)

    def pre_dump(self, name: str, port: int) -> Dumped:
        """One round: send the pages dirtied since the last one to the destination's page server.

        If writes make whole huge pages dirty, `whole` in the answer has the reason.
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
        """The connection for a dump's pages to the destination's port. With `plain` there is no relay (post-copy)."""
        order = self.order
        where = (order.peer.address, port)
        if plain:
            return Outgoing(where, order.peer.token, name)
        return Outgoing(
            where, order.peer.token, name, rate=rate, compress=order.compress, streams=order.streams
        )

    def _pre_dump(self, images: Path, port: int, outgoing: Outgoing) -> str | None:
        pids = cgroup.pids(cgroup.of_process(self.first_process))
        self.interrupted.note(pids)
        whole = hugepages.split(pids)
        settings = self.directory / "pre-dump.conf"
        settings.write_bytes(os.fsencode(outgoing.settings))
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
        """Runc's options for a dump of only what changed since the last one."""
        return ["--parent-path", f"../{self.parent}"] if self.parent else []

    def slow_down(self) -> float | None:
        """Halve the container's use of the CPUs, until `put_quota_back`.

        Returns how many CPUs it may use. None if it is at the minimum already.
        """
        return brake.slow_down(self.directory, self.first_process)

    def gather_pages(self) -> int:
        """Collapse small pages to huge pages, which shortens the dump of a post-copy.

        Returns the bytes in huge pages.
        """
        return hugepages.gather(cgroup.pids(cgroup.of_process(self.first_process)))

    def put_quota_back(self) -> None:
        """Give the container back its quota of CPUs from before `slow_down`."""
        brake.put_back(self.directory)

    def release(self) -> None:
        """Let the container run on here with its quota and its restart policy."""
        self.put_quota_back()
        self.policy.put_back()

    def close(self) -> None:
        """Remove everything of the migration here, in whatever phase it is."""
        self.resources.close()
