"""Connections that were left in repair are put right, in another process, without a word lost."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from sealift_agent.network import repair

PROGRAM = f"""
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
beside = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
other = socket.socket(socket.AF_UNIX)
connection.setsockopt(socket.IPPROTO_TCP, {repair.TCP_REPAIR}, 1)
print("ready", flush=True)
sys.stdin.readline()
connection.sendall(b"still here")
sys.stdin.readline()
"""


@pytest.mark.root
def test_a_connection_in_repair_is_put_right() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(listener.getsockname()[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        accepted, _ = listener.accept()
        assert repair.end([process.pid, 1 << 22]) == 1
        assert repair.end([process.pid]) == 0
        process.stdin.write("\n")
        process.stdin.flush()
        accepted.settimeout(5)
        assert accepted.recv(100) == b"still here"
        accepted.close()
        process.stdin.write("\n")
        process.stdin.close()
