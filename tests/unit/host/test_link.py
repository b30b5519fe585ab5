"""A link is measured, by several connections where one does not fill a long way."""

from __future__ import annotations

import socket

import pytest

from sealift_agent import codec
from sealift_agent.network import link
from sealift_agent.wire import AgentError, Link

pytestmark = pytest.mark.alone

LOOPBACK = "127.0.0.1"
PACE = 2_000_000
SO_MAX_PACING_RATE = 47


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection carries so many bytes a second, however many there are."""
    connect = Link.connect

    def slowly(*where: object, **how: object) -> Link:
        found = connect(*where, **how)
        found.socket.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, PACE)
        return found

    monkeypatch.setattr(link.Link, "connect", slowly)


def test_a_short_way_is_measured_by_one_connection() -> None:
    found = link.send(**codec.encode(link.receive(LOOPBACK)))
    assert found.bytes_s > 10 * PACE
    assert 0 < found.sent_bytes <= link.MOST_BYTES
    assert found.streams == 1


@pytest.mark.usefixtures("paced")
def test_a_long_way_that_one_connection_does_not_fill_is_given_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "LONG_S", 0.0)
    found = link.send(**codec.encode(link.receive(LOOPBACK)))
    assert found.streams == link.STREAMS
    assert found.bytes_s == pytest.approx(link.STREAMS * PACE, rel=0.3)


@pytest.mark.usefixtures("paced")
def test_a_short_way_is_not_given_several_however_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LONG_S", 1.0)
    found = link.send(**codec.encode(link.receive(LOOPBACK)))
    assert found.streams == 1
    assert found.bytes_s == pytest.approx(PACE, rel=0.3)


def test_a_door_that_is_shut_is_said() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(AgentError, match="can't be reached"):
        link.send(LOOPBACK, port, "token")
