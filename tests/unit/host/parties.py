"""The parties of a cutover, in one process: real sockets and the protocol's own messages between them.

What needs root or Docker is played: the frozen container, runc's dump, the restore under Docker, the bridge port. Each
writes down what it is told to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sealift_agent import authenticated, gateway
from sealift_agent.admission import Admission
from sealift_agent.destination.copy import Copy
from sealift_agent.destination.cutover import Armed as ArmedDestination
from sealift_agent.destination.decision import Decision
from sealift_agent.interrupted import Interrupted
from sealift_agent.left_behind import Left
from sealift_agent.protocol import Decider, Move
from sealift_agent.source.cutover import Armed as ArmedSource
from sealift_agent.source.quiet import Quiet
from sealift_agent.wire import LOOPBACK, AgentError, Controller, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY, OTHER = "11" * 32, "22" * 32
MOVE = Move("m", "10.77.0.9", "a=", "b=", "there")


class Record:
    """The gateway's record, as far as a decider needs it; `refuses` is what it says before anything is decided."""

    def __init__(self, outcome: str | None = None, refuses: str | None = None) -> None:
        self.outcome, self.refuses = outcome, refuses
        self.behind: dict[str, str] = {}
        self.asked: list[str] = []

    def switch(self, _: Move) -> str:
        self.asked.append("switch")
        if self.refuses:
            raise AgentError(self.refuses)
        self.outcome = self.outcome or "committed"
        return self.outcome

    def call_off(self, _: str) -> str:
        self.asked.append("call_off")
        self.outcome = self.outcome or "rolled back"
        return self.outcome


class Deciders:
    """Gateways that were started for a test. None holds packets: a queue in the kernel needs root."""

    def __init__(self) -> None:
        self.made: list[gateway.Decider] = []

    def start(self, record: Record, key: str = KEY, port: int = 0) -> gateway.Decider:
        one: Any = gateway.Decider(record, LOOPBACK, "t", key, MOVE, port)  # type: ignore[arg-type]
        for question, answer in {
            "prepare": {},
            "hold_new": {},
            "pass": {},
            "hold": {},
            "release": {"held": 3},
        }.items():
            one.questions[question] = lambda answer=answer: answer
        one.start()
        self.made.append(one)
        return one

    def end(self) -> None:
        for one in self.made:
            one.end()


def impostor(answers: Callable[[dict[str, Any]], bytes]) -> int:
    """Somebody at the gateway's address, who knows the token but not the key. Returns his port."""
    admission = Admission(LOOPBACK, "t", slots=None)

    def serve() -> None:
        while True:
            try:
                link = Link(admission.take())
                link.socket.sendall(answers(link.receive(5)) + b"\n")
            except (OSError, AgentError):
                return

    threading.Thread(target=serve, daemon=True).start()
    return admission.port


def asked_at(port: int, *, group: bool = False, timeout_s: float = 5) -> authenticated.Gateway:
    """The gateway at a port, as a host asks it."""
    return authenticated.Gateway(Decider(LOOPBACK, port, "t", KEY, group=group), "m", timeout_s)


def connected() -> tuple[Link, Link]:
    """A connection between two agents, through the kernel."""
    with Admission(LOOPBACK, "t") as admission:
        link = Link.connect(LOOPBACK, admission.port, "t")
        return link, Link(admission.take(5))


class Told(Controller):
    """A controller that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[dict[str, Any]] = []

    def tell(self, **message: Any) -> None:
        self.messages.append(json.loads(json.dumps(message)))

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.messages]


@dataclass
class Played:
    """What is done to a thing that is only played, in order; whatever is named in `failures` fails."""

    done: list[str]
    failures: set[str] = field(default_factory=set)

    def note(self, what: str) -> None:
        self.done.append(what)
        if what in self.failures:
            raise AgentError(f"{what} has failed")


@dataclass
class PlayedContainer(Played):
    id, address, first, group = "c", "10.77.0.9", 1, Path("/nowhere")
    processes: tuple[int, ...] = ()
    left = Left()
    watches = False
    once_frozen: Callable[[], object] = lambda: None
    events: list[dict[object, str]] = field(default_factory=list)

    def freeze(self) -> list[int]:
        self.note("freeze")
        self.once_frozen()
        return []

    def unread_events(self) -> dict[object, str]:
        """Of watched files, what a program has not read."""
        return self.events.pop(0) if self.events else {}

    def set_aside(self, stopped: list[int]) -> None:
        assert stopped == []

    def go_on(self) -> int | None:
        self.note("go on")
        return 1 if "freeze" in self.done else None

    def remove(self) -> None:
        self.note("remove")


class PlayedDump(Played):
    def begin(self) -> None:
        self.note("dump")

    def wait(self) -> None:
        self.note("dumped")

    def pushed(self) -> Any:
        return contextlib.nullcontext()

    def sent(self) -> dict[str, int]:
        return {}

    def end(self, *, committed: bool = False) -> None:
        self.note("end dump after the commit" if committed else "end dump")

    def wait_until_fetched(self) -> int:
        self.note("fetched")
        return 4096


class PlayedPolicy(Played):
    def put_back(self) -> None:
        self.note("policy")


class PlayedHandshakes:
    """What the kernel says: one list of unaccepted connections after the other, then none."""

    def __init__(self) -> None:
        self.waiting: list[dict[int, int]] = []
        self.half_open: list[bool] = []
        self.sending: list[int] = []

    def unaccepted(self) -> dict[int, int]:
        return self.waiting.pop(0) if self.waiting else {}

    def are_half_open(self) -> bool:
        return bool(self.half_open and self.half_open.pop(0))

    def still_sending(self) -> int:
        return self.sending.pop(0) if self.sending else 0


class PlayedSource:
    """A source that is armed: the real `cutover.Armed`, on a real connection to whoever plays the destination."""

    def __init__(self, place: Path, port: int, *, group: bool = False) -> None:
        self.controller = Told()
        self.done: list[str] = []
        self.container = PlayedContainer(self.done)
        self.dump = PlayedDump(self.done)
        self.policy = PlayedPolicy(self.done)
        self.link, self.destination = connected()
        (place / "final").mkdir()
        (place / "final/core-1.img").write_bytes(b"core")
        live: Any = SimpleNamespace(
            directory=place,
            images=place / "final",
            link=self.link,
            log=None,
            policy=self.policy,
            order=SimpleNamespace(migration="m", container="c"),
            sender=SimpleNamespace(
                trees={}, begin_dump=lambda: None, final_pass=lambda _: self.container.note("files") or 0
            ),
            print_again=lambda: None,
            interrupted=Interrupted(),
            put_quota_back=lambda: None,
            watched=lambda *_: contextlib.nullcontext(),
        )
        self.gateway = asked_at(port, group=group)
        self.handshakes = PlayedHandshakes()
        self.armed = ArmedSource(
            live,
            self.controller,
            self.gateway,
            self.container,  # type: ignore[arg-type]
            self.dump,  # type: ignore[arg-type]
            Quiet(self.container, self.gateway, self.handshakes),  # type: ignore[arg-type]
            [],
            files_sent=False,
        )

    @property
    def runs(self) -> bool:
        return "freeze" not in self.done or "go on" in self.done

    def lose_gateway(self, port: int) -> None:
        """From the freeze on somebody else answers at the gateway's address: whoever listens at this port."""
        gateway = self.gateway

        def turn() -> None:
            gateway._decider = replace(gateway._decider, port=port)
            gateway.connect(5)

        self.container.once_frozen = turn

    def destination_says(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self.destination.send(**message)


class PlayedRestore(Played):
    is_lazy = False

    def print(self, lines: bytes) -> None:
        self.note(f"print {len(lines)}")

    def run(self, processes: int) -> dict[str, int]:
        self.note("restore" if processes == 0 else f"restore {processes}")
        return {}

    def first_process(self) -> int:
        self.note("first process")
        return os.getpid()

    def make_sure(self) -> None:
        self.note("make sure")

    def watch_memory(self) -> None:
        self.note("watch memory")

    def complete_memory(self) -> None:
        self.note("complete memory")

    def stay(self) -> None:
        self.note("stay")

    def finish(self) -> dict[str, Any]:
        self.note("finish")
        return {"Status": "running", "Pid": 1}


class PlayedPort(Played):
    def attach(self) -> None:
        self.note("attach")

    def resolve(self, address: str) -> None:
        assert address == MOVE.address


class PlayedDestination:
    """A destination that is armed: the real `cutover.Armed`, on a real connection to whoever plays the source."""

    def __init__(self, place: Path, port: int) -> None:
        self.controller = Told()
        self.done: list[str] = []
        self.restore = PlayedRestore(self.done)
        self.port = PlayedPort(self.done)
        self.policy = PlayedPolicy(self.done)
        self.link, self.source = connected()
        self.copy = Copy()
        self.copy.after.append(lambda: self.done.append("given up"))
        (place / "final").mkdir()
        live: Any = SimpleNamespace(
            directory=place,
            images=place / "final",
            link=self.link,
            order=SimpleNamespace(migration="m", trees={"layer": str(place)}),
            keep_logs=lambda: None,
            finish_page_server=lambda: self.restore.note("all pages"),
        )
        self.decision = Decision(asked_at(port), self.controller, self.link, place)
        self.armed = ArmedDestination(
            live,
            self.copy,
            self.controller,
            self.restore,  # type: ignore[arg-type]
            self.decision,
            self.port,  # type: ignore[arg-type]
            MOVE.address,
            self.policy,  # type: ignore[arg-type]
        )
        self.armed.begin()

    def send_all(self, **more: bytes) -> None:
        """What a source sends behind its last dump; `more` are files by their names, with `_` for a dot."""
        files = {"core-1.img": b"core"} | {name.replace("_", "."): data for name, data in more.items()}
        listed = [{"name": name, "size": len(data)} for name, data in files.items()]
        self.source.send(images=listed, links=[], files=False)
        self.source.socket.sendall(b"".join(files.values()))

    def said(self) -> Iterator[dict[str, Any]]:
        """What it says to the source, up to its last word."""
        while True:
            message = self.source.receive(10)
            if "alive" not in message:
                yield message
            if "failed" in message or message.get("phase") == "committed":
                return
