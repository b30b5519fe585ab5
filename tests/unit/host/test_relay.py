"""What is limited keeps to its rate, and arrives whole."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from sealift.host.agent.memory import zstd
from sealift.host.agent.memory.relay import PACKED_BYTES, Pace, Relay, joined, packed, spread, unpacked
from sealift.host.agent.wire import AgentError, listen

RATE = 4_000_000


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
        connection, _ = listener.accept()
        while part := connection.recv(1 << 16):
            received.extend(part)
        connection.sendall(b"done")
        connection.close()

    with listen("127.0.0.1") as listener:
        server = threading.Thread(target=serve)
        server.start()
        with Relay(listener.getsockname(), rate=RATE) as relay:
            started = time.monotonic()
            with socket.create_connection(("127.0.0.1", relay.port)) as criu:
                criu.sendall(data)
                criu.shutdown(socket.SHUT_WR)
                assert criu.recv(10) == b"done"
            took = time.monotonic() - started
        server.join()
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
        connection, _ = listener.accept()
        with connection:
            received.extend(connection.recv(5))
            connection.sendall(b"go on")
            while part := connection.recv(1 << 16):
                received.extend(part)
            connection.sendall(b"done")

    with listen("127.0.0.1") as listener:
        server = threading.Thread(target=serve)
        server.start()
        with (
            Relay(listener.getsockname(), carry=unpack, came_by=streams) as there,
            Relay(("127.0.0.1", there.port), carry=pack, goes_by=streams) as here,
            socket.create_connection(("127.0.0.1", here.port)) as criu,
        ):
            criu.sendall(data[:5])
            assert criu.recv(10) == b"go on"
            criu.sendall(data[5:])
            criu.shutdown(socket.SHUT_WR)
            assert criu.recv(10) == b"done"
            assert (here.sent < len(data) / 10) is (pack is packed)
            assert there.sent == len(data)
        server.join()
    assert received == data


def test_one_of_several_connections_that_is_lost_ends_all() -> None:
    got = bytearray()
    with (
        listen("127.0.0.1") as listener,
        Relay(listener.getsockname(), carry=joined, came_by=2) as there,
        socket.create_connection(("127.0.0.1", there.port)) as second,
        socket.create_connection(("127.0.0.1", there.port)) as first,
    ):
        first.sendall(bytes([0]) + b"\0\0\0\3one" + b"\0\0\0\5three")
        second.sendall(bytes([1]) + b"\0\0\0\3tw")
        second.shutdown(socket.SHUT_WR)
        connection, _ = listener.accept()
        with connection:
            while part := connection.recv(100):
                got.extend(part)
    assert got == b"one"


@pytest.mark.parametrize(
    "sent", [b"\0\0\0\4abcd", b"\0\0\0\xffabcd", b"\xff\xff\xff\xffabcd", b"\0\0", bytes(9)]
)
def test_what_is_no_compressed_stream_ends_the_connection_and_nothing_of_it_goes_on(sent: bytes) -> None:
    with (
        listen("127.0.0.1") as listener,
        Relay(listener.getsockname(), carry=unpacked) as relay,
        socket.create_connection(("127.0.0.1", relay.port)) as attacker,
    ):
        attacker.sendall(sent)
        attacker.shutdown(socket.SHUT_WR)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(10) == b""


def test_a_frame_that_holds_more_than_it_may_is_refused() -> None:
    frame = zstd.compress(bytes(PACKED_BYTES + 1))
    with pytest.raises(AgentError, match="can't be expanded"):
        zstd.expand(frame, PACKED_BYTES)
    assert zstd.expand(zstd.compress(b""), 0) == b""


def test_a_relay_that_nobody_connects_to_ends() -> None:
    with Relay(("127.0.0.1", 9), rate=RATE):
        pass
