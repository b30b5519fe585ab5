"""What another process has corked on a connection of ours arrives at once while it is being pushed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from sealift_agent.memory import cork

CEILING_S = 0.2
"""How long the kernel holds back what was corked (tcp(7))."""

SENDER = """
import socket, sys
connection = socket.socket(fileno=int(sys.argv[1]))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
sys.stdin.readline()
connection.sendall(b"farewell")
sys.stdin.readline()
"""


@pytest.fixture
def corked():
    """A process that keeps back what it sends when it is told to, the connection that it has, and the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        with socket.create_connection(listener.getsockname()) as ours:
            words = [sys.executable, "-c", SENDER, str(ours.fileno())]
            with subprocess.Popen(
                words, stdin=subprocess.PIPE, text=True, pass_fds=[ours.fileno()]
            ) as process:
                connection, _ = listener.accept()
                try:
                    with connection:
                        yield process, ours, connection
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
    process, _, connection = corked
    with cork.Pushed(None):
        assert arrival_s(process, connection) > CEILING_S / 2


def test_what_is_corked_arrives_while_it_is_pushed(corked) -> None:
    process, ours, connection = corked
    with cork.Pushed(ours):
        time.sleep(0.05)
        assert arrival_s(process, connection) < CEILING_S / 2


def test_a_connection_that_was_closed_is_pushed_no_more(corked) -> None:
    _, ours, _ = corked
    with cork.Pushed(ours):
        ours.close()
        time.sleep(0.02)
