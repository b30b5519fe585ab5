"""What another process has corked arrives at once while it is being pushed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from sealift.host.agent.memory import cork

CEILING_S = 0.2
"""How long the kernel holds back what was corked (tcp(7))."""

SENDER = """
import socket, sys
there = ("127.0.0.1", int(sys.argv[1]))
connection = socket.create_connection(there)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
sys.stdin.readline()
connection.sendall(b"farewell")
sys.stdin.readline()
"""


@pytest.fixture
def corked():
    """A process that keeps back what it sends when it is told to, and the connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        words = [sys.executable, "-c", SENDER, str(listener.getsockname()[1])]
        with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as process:
            connection, _ = listener.accept()
            try:
                with connection:
                    yield process, connection, listener.getsockname()
            finally:
                process.kill()


def arrival_s(process: subprocess.Popen[str], connection: socket.socket) -> float:
    began = time.monotonic()
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    connection.settimeout(10)
    assert connection.recv(100) == b"farewell"
    return time.monotonic() - began


def test_what_is_corked_is_held_back_without_it(corked) -> None:
    process, connection, _ = corked
    assert arrival_s(process, connection) > CEILING_S / 2


def test_what_is_corked_arrives_while_it_is_pushed(corked) -> None:
    process, connection, there = corked
    with cork.Pushed(process.pid, there):
        time.sleep(0.05)
        assert arrival_s(process, connection) < CEILING_S / 2


def test_a_process_that_is_not_connected_there_is_left_alone(corked) -> None:
    process, connection, there = corked
    with cork.Pushed(process.pid, (there[0], there[1] ^ 1)):
        time.sleep(0.02)
        assert arrival_s(process, connection) > CEILING_S / 2


def test_the_connection_ends_with_its_process(corked) -> None:
    process, connection, there = corked
    with cork.Pushed(process.pid, there):
        time.sleep(0.05)
        process.kill()
        process.wait()
    connection.settimeout(1)
    assert connection.recv(100) == b""
