"""What is limited keeps to its rate, and arrives whole."""

from __future__ import annotations

import socket
import threading
import time

from sealift.host.agent.throttle import Pace, Relay
from sealift.host.agent.wire import listen

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
        with Relay("127.0.0.1", listener.getsockname()[1], RATE) as relay:
            started = time.monotonic()
            with socket.create_connection(("127.0.0.1", relay.port)) as criu:
                criu.sendall(data)
                criu.shutdown(socket.SHUT_WR)
                assert criu.recv(10) == b"done"
            took = time.monotonic() - started
        server.join()
    assert received == data
    assert 0.9 * len(data) / RATE <= took < 5


def test_a_relay_that_nobody_connects_to_ends() -> None:
    with Relay("127.0.0.1", 9, RATE):
        pass
