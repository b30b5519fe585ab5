"""Whatever an agent answers: the controller hears a result, or that the agent is lost, and never waits for ever."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from sealift.errors import HostUnreachable
from sealift.host.agents import Agent
from sealift_agent.protocol import VERSION, DescribeHost


class Channel(io.BytesIO):
    """What an agent has said already."""

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self.getvalue())

    def settimeout(self, _: float) -> None: ...

    def recv_stderr(self, _: int) -> bytes:
        words, self.words = self.words, b""
        return words

    words = b"its last words"

    def sendall(self, _: bytes) -> None:
        raise OSError


class Connection:
    name = "there"

    def __init__(self, said: bytes) -> None:
        self.said = said

    def run(self, *_: Any, **__: Any) -> Any:
        class Done:
            status = 0

        return Done

    def open(self, _: list[str]) -> Channel:
        return Channel(self.said)


@pytest.mark.parametrize(
    "said",
    [
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        json.dumps({"number": [1], "result": 2}).encode(),
        json.dumps({"event": ["a"]}).encode(),
    ],
)
def test_an_agent_that_says_nonsense_is_lost(said: bytes) -> None:
    heard: list[Any] = []
    agent = Agent(Connection(said + b"\n"), "facts", heard.append)  # type: ignore[arg-type]
    agent._reader.join(10)
    assert not agent._reader.is_alive()
    assert agent.lost
    assert not heard
    with pytest.raises(HostUnreachable):
        agent.call(DescribeHost())


def test_an_agent_of_another_version_is_refused_in_one_sentence() -> None:
    said = b'{"hello": %d}\n{"number": 1, "result": {}}\n' % (VERSION + 1)
    agent = Agent(Connection(said), "facts")  # type: ignore[arg-type]
    agent._reader.join(10)
    with pytest.raises(
        HostUnreachable,
        match=f"it speaks version {VERSION + 1} of the protocol, and this Sealift speaks {VERSION}",
    ):
        agent.call(DescribeHost())
