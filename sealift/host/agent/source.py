"""The source: live passes and pre-dumps while the container runs, then the cutover, which needs no controller.

From the freeze on, this process alone decides when the container may run again: at once as long as the other side can't
have everything it needs, afterwards only when the gateway has called the migration off.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

from . import cgroup, criu, docker_api, limits, plug
from .files import Sender
from .log import TAIL, Log
from .wire import AgentError, Controller, Link, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RESTORE_TIMEOUT_S = 120
ASK_AGAIN_S = 1
DUMP_TIMEOUT_S = 60
METADATA_EXCEPT = {".log", ".pid"}


class Source:
    """One migration, seen from where the container runs."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.frozen = False
        self.committed = False
        self.everything_sent = False
        self.plug: plug.Plug | None = None
        self.link: Link | None = None
        self.decider: Link | None = None
        self.gateway: dict[str, Any] = {}
        self.parent: str | None = None
        self.log: Log | None = None

    def open(
        self,
        migration: str,
        container: str,
        peer: dict[str, Any],
        trees: dict[str, str],
        log: str | None,
    ) -> None:
        """Connect to the destination and prepare to dump."""
        self.container = container
        self.peer = peer
        self.directory, self.lock = criu.open_dumps(migration)
        self.sender = Sender(peer["address"], peer["rsync_port"], peer["password"], trees)
        self.log = Log(log) if log else None
        self.link = Link.connect(peer["address"], peer["port"], peer["token"])

    def live_pass(self) -> int:
        """Send the files that differ. Returns the bytes sent."""
        return self.sender.live_pass()

    def send_log(self, name: str) -> dict[str, int]:
        """Send what the container has printed so far, as `name`; the mark up to which it counts."""
        if self.log is None:
            return {"marked": 0, "sent": 0}
        marked = self.log.mark()
        files = {path: f"{name}{ending}" for path, ending in self.log.files().items()}
        return {"marked": marked, "sent": self.sender.copy("log", files)}

    def pre_dump(self, name: str, port: int) -> dict[str, int]:
        """One round: the pages dirtied since the last one, straight to the destination's page server."""
        images = self.directory / name
        options = ["--pre-dump", "--page-server", f"{self.peer['address']}:{port}", *self._parent()]
        pid = docker_api.call("GET", f"/containers/{self.container}/json")["State"]["Pid"]
        env = limits.environment(cgroup.pids(cgroup.of_process(pid)))
        dump = criu.checkpoint(self.container, images, *options, env=env)
        criu.finish(dump, "pre-dump", images / "dump.log")
        self.parent = name
        return criu.dump_stats(images)

    def arm(self, address: str, bridge: str, gateway: dict[str, Any]) -> dict[str, Any]:
        """Find the cable and the control group: what the cutover needs to know."""
        self.gateway = gateway
        self.decider = Link.connect(gateway["address"], gateway["port"], gateway["token"])
        state = docker_api.call("GET", f"/containers/{self.container}/json")["State"]
        if not state["Running"] or not state["Pid"]:
            raise AgentError("the container has stopped meanwhile", "final dump")
        self.group = cgroup.of_process(state["Pid"])
        self.plug = plug.find(f"/proc/{state['Pid']}/ns/net", address, bridge)
        criu.runtime_root(self.container)
        self.environment = limits.environment(cgroup.pids(self.group))
        return {"processes": len(cgroup.pids(self.group)), "port": self.plug.port}

    def go(self, page_server_port: int) -> str:
        """The cutover. Returns the outcome: "committed" or "rolled back"; tells every phase as it passes."""
        step = "final dump"
        try:
            self._dump_and_send(page_server_port)
            for phase, step in (
                ("received", "transfer"),
                ("restored", "restore"),
                ("committed", "network switch"),
            ):
                answer = self._hear()
                if "failed" in answer:
                    raise AgentError(answer["failed"], answer.get("step", step))
                if answer.get("phase") != phase:
                    raise AgentError(f"the destination said {answer} instead of {phase}", step)
                self.controller.event(phase, **answer.get("facts", {}))
        except Exception as failure:
            outcome = self._settle()
            self.controller.event("settled", outcome=outcome)
            if outcome == "committed":
                self.committed = True
                return outcome
            raise AgentError(f"{failure}", getattr(failure, "step", None) or step) from failure
        else:
            self.committed = True
            return "committed"

    def _dump_and_send(self, port: int) -> None:
        assert self.plug and self.link and self.decider  # noqa: S101, PT018 - `arm` came before
        tell = self.controller.event
        tell("go")
        self.decider.send(ask="hold")
        if "error" in (answer := self.decider.receive(10)):
            raise AgentError(answer["error"], "final dump")
        # Frozen first, cut off then: an answer that was dropped at a port without a bridge would have to wait for the
        # restored socket's retransmission timer, a whole second. What arrives in between is part of the dump.
        cgroup.freeze(self.group)
        self.frozen = True
        self.frozen_at = time.monotonic_ns()
        self.plug.pull()
        tell("frozen")
        images = self.directory / "final"
        server = f"{self.peer['address']}:{port}"
        options = ["--leave-running", "--page-server", server, *self._parent()]
        dump = criu.checkpoint(self.container, images, *options, env=self.environment)
        try:
            file_bytes = self.sender.final_pass(cgroup.pids(self.group))
        finally:
            criu.finish(dump, "final dump", images / "dump.log")
        if (images / "remap-fpath.img").exists():
            # CRIU has just given names to files that had lost theirs: they have to travel too.
            file_bytes += self.sender.final_pass([])
        tell("dumped", file_bytes=file_bytes, **criu.dump_stats(images))
        if self.log is not None:
            (images / TAIL).write_bytes(self.log.tail())
        metadata = [path for path in sorted(images.iterdir()) if _travels(path)]
        sizes = {path: path.stat().st_size for path in metadata}
        self.everything_sent = True
        self.link.send(images=[{"name": path.name, "size": size} for path, size in sizes.items()])
        for path, size in sizes.items():
            self.link.send_file(path, size)
        tell("sent", metadata_bytes=sum(sizes.values()))

    def _hear(self) -> dict[str, Any]:
        assert self.link is not None  # noqa: S101 - `open` came before
        return self.link.receive(RESTORE_TIMEOUT_S)

    def _settle(self) -> str:
        """After a failure: the outcome. Thaws when, and only when, this side has the container."""
        if not self.everything_sent:
            self.release()
            return "rolled back"  # nobody else can have the container
        outcome = self._ask_gateway()
        if outcome != "committed":
            self.release()
        return outcome

    def _ask_gateway(self) -> str:
        told = False
        while True:
            try:
                link = Link.connect(
                    self.gateway["address"], self.gateway["port"], self.gateway["token"], timeout=5
                )
                link.send(ask="call_off")
                return str(link.receive(10)["outcome"])
            except (OSError, AgentError, KeyError) as silent:
                if not told:
                    self.controller.event("undecided", reason=f"the gateway does not answer: {silent}")
                told = True
                time.sleep(ASK_AGAIN_S)

    def release(self) -> None:
        """Let the container run on here, as if nothing had happened."""
        if self.plug is not None:
            self.plug.put_back()
        if self.frozen:
            cgroup.thaw(self.group)
            self.frozen = False
            self.controller.event("thawed", frozen_ns=time.monotonic_ns() - self.frozen_at)

    def remove_container(self) -> None:
        """After the commit: end this copy and remove it."""
        remove(self.container)
        self.frozen = False

    def close(self) -> None:
        """Forget the migration: wipe the images. Before the commit the container goes on."""
        if not self.committed:
            self.release()
        if self.link is not None:
            self.link.close()
            self.link = None
            if self.decider is not None:
                self.decider.close()
            criu.wipe(self.directory, self.lock)

    def _parent(self) -> list[str]:
        return ["--parent-path", f"../{self.parent}"] if self.parent else []


def remove(container: str) -> None:
    """End the copy that did not win without letting it run, and remove it with its files.

    Named volumes stay, as with `docker rm`.
    """
    try:
        pid = docker_api.call("GET", f"/containers/{container}/json")["State"]["Pid"]
    except docker_api.NotThere:
        return
    # A restart policy would bring the killed copy back to life.
    docker_api.call("POST", f"/containers/{container}/update", {"RestartPolicy": {"Name": "no"}})
    if pid:
        group = cgroup.of_process(pid)
        cgroup.kill_frozen(group)
        cgroup.thaw(group)
    docker_api.call("DELETE", f"/containers/{container}?force=1&v=1")


def resume(migration: str, container: str, address: str, bridge: str) -> None:
    """After an agent that was killed, and a decision against the migration: the container goes on here."""
    with criu.abandoned(migration) as directory:
        deadline = time.monotonic() + DUMP_TIMEOUT_S
        while criu.at_work(directory) and time.monotonic() < deadline:
            time.sleep(0.05)  # a CRIU that is killed leaves its parasite in the processes that it dumps
        try:
            state = docker_api.call("GET", f"/containers/{container}/json")["State"]
        except docker_api.NotThere:
            state = {"Pid": 0}  # removed meanwhile, by whoever owns it
        if state["Pid"]:
            plug.find(f"/proc/{state['Pid']}/ns/net", address, bridge).put_back()
            cgroup.thaw(cgroup.of_process(state["Pid"]))


def discard(migration: str, container: str) -> None:
    """After an agent that was killed, and a decision for the migration: this host's copy goes."""
    with criu.abandoned(migration):
        remove(container)


def _travels(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.suffix not in METADATA_EXCEPT


def send_image(reference: str, address: str, port: int, token: str) -> int:
    """Stream an image (`docker save`) to the destination. Returns the bytes sent."""
    link = Link.connect(address, port, token)
    connection, response = docker_api.request("GET", f"/images/{reference}/get", timeout=600)
    sent = 0
    try:
        if response.status != 200:
            raise AgentError(f"Docker refuses to save the image {reference}", "sync")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the other side says why below
            while chunk := response.read(1 << 20):
                link.socket.sendall(chunk)
                sent += len(chunk)
            link.socket.shutdown(socket.SHUT_WR)
        answer = link.receive(600)
        if "error" in answer:
            raise AgentError(answer["error"], "sync")
    finally:
        connection.close()
        link.close()
    return sent


def main(controller: Controller) -> None:
    """Serve one controller for one migration."""
    source = Source(controller)
    handlers: dict[str, Callable[..., Any]] = {
        "open": source.open,
        "send_image": send_image,
        "live_pass": source.live_pass,
        "send_log": source.send_log,
        "pre_dump": source.pre_dump,
        "arm": source.arm,
        "go": source.go,
        "remove_container": source.remove_container,
        "close": source.close,
        "resume": resume,
        "discard": discard,
    }
    serve(handlers, controller, source.close)
