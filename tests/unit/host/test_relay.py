"""What is limited keeps to its rate, and arrives whole."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from sealift_agent.memory import zstd
from sealift_agent.memory.relay import PACKED_BYTES, Pace, Relay, joined, packed, spread, unpacked
from sealift_agent.wire import AgentError

pytestmark = pytest.mark.alone

RATE = 4_000_000


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection through the network."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]


def test_a_pace_is_kept_and_idle_time_is_not_saved_up() -> None:
    pace = Pace(RATE)
    time.sleep(0.3)
    started = time.monotonic()
    for _ in range(20):
        pace.spent(RATE // 100)
    assert 0.15 <= time.monotonic() - started < 1


def test_without_a_limit_nothing_waits() -> None:
    started = time.monotonic()
    Pace(None).spent(1 << 40)
    assert time.monotonic() - started < 0.1


def test_a_relay_carries_both_ways_at_its_rate_and_ends_with_either_side() -> None:
    data = bytes(range(256)) * 8000
    received = bytearray()

    def serve() -> None:
        with server:
            while part := server.recv(1 << 16):
                received.extend(part)
            server.sendall(b"done")

    criu, near = socket.socketpair()
    far, server = pair()
    serving = threading.Thread(target=serve)
    serving.start()
    with Relay([near], [far], rate=RATE), criu:
        started = time.monotonic()
        criu.sendall(data)
        criu.shutdown(socket.SHUT_WR)
        assert criu.recv(10) == b"done"
        took = time.monotonic() - started
    serving.join()
    assert received == data
    assert 0.9 * len(data) / RATE <= took < 5


@pytest.mark.parametrize(("pack", "unpack"), [(packed, unpacked), (spread, joined)], ids=["packed", "spread"])
@pytest.mark.parametrize("streams", [1, 3])
def test_two_relays_carry_it_in_order_and_an_answer_to_a_part_is_not_waited_for(
    pack, unpack, streams
) -> None:
    data = bytes(range(256)) * 20000
    received = bytearray()

    def serve() -> None:
        with server:
            received.extend(server.recv(5))
            server.sendall(b"go on")
            while part := server.recv(1 << 16):
                received.extend(part)
            server.sendall(b"done")

    criu, near = socket.socketpair()
    end, server = socket.socketpair()
    outs, ins = zip(*(pair() for _ in range(streams)), strict=True)
    serving = threading.Thread(target=serve)
    serving.start()
    with Relay(ins, [end], carry=unpack) as there, Relay([near], outs, carry=pack) as here, criu:
        criu.sendall(data[:5])
        assert criu.recv(10) == b"go on"
        criu.sendall(data[5:])
        criu.shutdown(socket.SHUT_WR)
        assert criu.recv(10) == b"done"
        assert (here.sent < len(data) / 10) is (pack is packed)
        assert there.sent == len(data)
    serving.join()
    assert received == data


def test_one_of_several_connections_that_is_lost_ends_all() -> None:
    got = bytearray()
    (first, one), (second, two) = pair(), pair()
    end, server = socket.socketpair()
    with Relay([one, two], [end], carry=joined), first, second, server:
        first.sendall(b"\0\0\0\3one" + b"\0\0\0\5three")
        second.sendall(b"\0\0\0\3tw")
        second.shutdown(socket.SHUT_WR)
        while part := server.recv(100):
            got.extend(part)
    assert got == b"one"


def test_who_sends_into_a_relay_whose_way_is_cut_is_told_and_does_not_hang() -> None:
    criu, near = socket.socketpair()
    far, server = pair()
    criu.settimeout(10)
    with Relay([near], [far]), criu:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()  # a reset, as `ss --kill` does
        with pytest.raises(BrokenPipeError):
            criu.sendall(bytes(1 << 26))


@pytest.mark.parametrize(
    "sent", [b"\0\0\0\4abcd", b"\0\0\0\xffabcd", b"\xff\xff\xff\xffabcd", b"\0\0", bytes(9)]
)
def test_what_is_no_compressed_stream_ends_the_connection_and_nothing_of_it_goes_on(sent: bytes) -> None:
    attacker, came = pair()
    end, server = socket.socketpair()
    with Relay([came], [end], carry=unpacked), attacker, server:
        attacker.sendall(sent)
        attacker.shutdown(socket.SHUT_WR)
        assert server.recv(10) == b""


def test_a_frame_that_holds_more_than_it_may_is_refused() -> None:
    frame = zstd.compress(bytes(PACKED_BYTES + 1))
    with pytest.raises(AgentError, match="can't be expanded"):
        zstd.expand(frame, PACKED_BYTES)
    assert zstd.expand(zstd.compress(b""), 0) == b""


def test_a_relay_that_nothing_comes_to_ends() -> None:
    (_, near), (far, _) = pair(), pair()
    with Relay([near], [far], rate=RATE):
        pass
