"""The journal, the gateway's decision and the recovery as one machine: a crash after each write, and after each write
of what puts it right. In the end one copy acts on the world, it is where the packets go, and the record is closed.

The journal, the record of routes and the recovery are the real ones, on a real disk; the two hosts are a model.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealift.migration import recovery
from sealift_agent import codec, journal, protocol
from sealift_agent.network import allowed, userspace
from sealift_agent.orders import Orders
from sealift_agent.protocol import Move, Noted
from sealift_agent.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADDRESS, NAME = "10.77.0.9", "m"
PEERS = {"source": "a=", "destination": "b="}
OPENED = Noted(
    source="source",
    destination="destination",
    address=ADDRESS,
    container="old",
    name="redis",
    image="i",
    missing=[],
)


class Crash(BaseException):
    """The process is gone: nothing catches it."""


class Fuse:
    """Counts what is written to the disk; the process dies after the write that it was set to."""

    def __init__(self) -> None:
        self.left: int | None = None

    def after(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def burning(*arguments: Any, **named: Any) -> Any:
            result = write(*arguments, **named)
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    self.left = None
                    raise Crash
            return result

        return burning


@dataclass
class World:
    """The two hosts. A copy is `live`, `frozen` or `cut off`, `created`, or not there."""

    state: Path
    copies: dict[str, str | None] = field(default_factory=lambda: {"source": "live", "destination": None})

    def put(self, host: str, copy: str | None) -> None:
        self.copies[host] = copy
        assert list(self.copies.values()).count("live") <= 1, f"two live copies: {self.copies}"

    def routes(self) -> Routes:
        return Routes(self.state)

    def switch(self) -> str:
        """The destination asks for the address; what it does with the answer."""
        outcome = self.routes().switch(
            Move(NAME, ADDRESS, PEERS["source"], PEERS["destination"], "destination")
        )
        self.put("destination", "live" if outcome == "committed" else None)
        return outcome

    def doubt(self) -> str:
        """The source has heard nothing and asks; what it does with the answer."""
        outcome = self.routes().call_off(NAME)
        if outcome == "rolled back":
            self.put("source", "live")
        return outcome

    def migrate(self, mine: journal.Journal) -> None:
        """The protocol, each transition on the disk before what it announces."""
        mine.note(NAME, "opened", OPENED)
        self.put("destination", "created")
        mine.note(NAME, "copied", Noted(copy="new", volumes={}))
        mine.note(NAME, "armed")
        self.put("source", "frozen")
        self.put("destination", "cut off")
        self.switch()
        self.put("source", None)
        mine.note(NAME, "closed")

    def recover(self, mine: journal.Journal) -> None:
        """What `sealift recover` does."""
        routes = self.routes()
        orders = Orders(protocol.Role.GATEWAY)
        orders.on(protocol.ListUnfinished, lambda _: mine.unfinished())
        orders.on(protocol.TakeOver, lambda order: mine.take(order.migration))
        orders.on(protocol.Note, lambda order: mine.note(order.migration, order.phase, order.facts))
        orders.on(protocol.CallOff, lambda order: routes.call_off(order.migration))
        orders.on(protocol.ReleaseHeld, lambda _: None)

        class Gateway:
            def call(self, order: protocol.Order[Any]) -> Any:
                said = orders.carry_out(order.NAME, json.loads(json.dumps(codec.encode(order))))
                return codec.decode(order.ANSWER, said)

        recovery.end_unfinished(None, Gateway())

    def host_agent(self, role: str) -> Any:
        """An agent of a host, as far as `recover` needs it."""
        done = {"resume": "live", "discard": None, "sweep": None, "sweep_unnamed": None, "complete": "live"}

        class Agent(contextlib.nullcontext[Any]):
            def call(agent, order: protocol.Order[Any]) -> None:  # noqa: N805 - `self` is the world
                self.put(role, done[order.NAME])

            def __enter__(agent) -> Any:  # noqa: N805
                return agent

        return Agent()


@pytest.fixture
def fuse(monkeypatch: pytest.MonkeyPatch) -> Fuse:
    """Every write of the journal and of the gateway's record burns it."""
    burning = Fuse()
    monkeypatch.setattr(os, "fsync", burning.after(os.fsync))
    monkeypatch.setattr(os, "ftruncate", burning.after(os.ftruncate))
    monkeypatch.setattr(Path, "rename", burning.after(Path.rename))
    monkeypatch.setattr(Path, "unlink", burning.after(Path.unlink))
    monkeypatch.setattr(journal, "_write", burning.after(journal._write))
    monkeypatch.setattr(allowed, "apply", burning.after(lambda _: {}))
    monkeypatch.setattr(allowed, "peers", lambda: {key: [] for key in PEERS.values()})
    monkeypatch.setattr(userspace, "move", lambda *_: False)
    return burning


@contextlib.contextmanager
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
        made = World(Path(folder))
        made.routes().assign(ADDRESS, PEERS["source"], "source")
        patch.setattr(recovery, "rejoin", lambda *_: contextlib.nullcontext())
        patch.setattr(recovery, "Agent", lambda _connection, role: made.host_agent(role))
        yield made


def lives_through(
    world: World, fuse: Fuse, left: int | None, doing: Callable[[journal.Journal], None]
) -> bool:
    """Do it, until the fuse has burnt. With the process the kernel takes its locks back."""
    mine = journal.Journal(world.state / "migrations")
    fuse.left = left
    try:
        doing(mine)
    except Crash:
        return False
    finally:
        fuse.left = None
        mine.let_go()
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.integers(0, 30),
    again=st.lists(st.integers(0, 12), max_size=3),
    asking=st.lists(st.sampled_from(["switch", "doubt"]), max_size=2, unique=True),
)
def test_one_live_copy_whatever_is_written_last(
    monkeypatch: pytest.MonkeyPatch, fuse: Fuse, first: int, again: list[int], asking: list[str]
) -> None:
    with world(monkeypatch) as here:
        lived = lives_through(here, fuse, first, here.migrate)
        for question in asking:  # agents that were left alive, each from where it waits
            if question == "switch" and here.copies["destination"] == "cut off":
                here.switch()
            if question == "doubt" and here.copies["source"] == "frozen":
                here.doubt()
        for left in again:
            lives_through(here, fuse, left, here.recover)
        assert lives_through(here, fuse, None, here.recover)
        owner = here.routes().show().routes[ADDRESS].host
        assert here.copies[owner] == "live"
        assert list(here.copies.values()).count(None) == 1, here.copies
        assert journal.Journal(here.state / "migrations").unfinished() == []
        if lived:
            assert owner == "destination"


def test_the_fuse_reaches_every_write(monkeypatch: pytest.MonkeyPatch, fuse: Fuse) -> None:
    """Else the test above would not try them all."""
    outcomes = set()
    for first in range(40):
        with world(monkeypatch) as here:
            if lives_through(here, fuse, first, here.migrate):
                break
            outcomes.add(here.routes().show().decisions.get(NAME))
    assert 10 < first <= 30
    assert outcomes == {None, protocol.Outcome.COMMITTED}
