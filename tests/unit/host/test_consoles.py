"""A terminal that is made before its container, and what the terminals of processes are."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from sealift_agent.destination.console import Console
from sealift_agent.terminals import Terminals
from sealift_agent.wire import AgentError

TIOCGPTN = 0x80045430

SPEC = {
    "mounts": [
        {"type": "proc", "destination": "/proc"},
        {"type": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
    ]
}


def test_a_terminal_goes_to_the_runtimes_socket_and_stays_open(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file system needs root")
    console = Console(SPEC)
    shims = tmp_path / "pty.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(shims))
        listener.listen()
        console.give(str(shims))
        accepted, _ = listener.accept()
        with accepted:
            _, rights, _, _ = accepted.recvmsg(4096, socket.CMSG_SPACE(4))
    (master,) = array.array("i", rights[0][2])
    number = struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, b"0000"))[0]
    assert number == 0, "it is the first of a file system of its own"
    slave = os.open("0", os.O_RDWR | os.O_NOCTTY, dir_fd=console.file_system)
    os.write(slave, b"hello\n")
    assert os.read(master, 99) == b"hello\r\n"
    os.close(slave)
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 1)  # not the end: the console holds the other end
    console.close()
    with pytest.raises(OSError, match="Input/output error"):
        os.read(master, 1)
    os.close(master)


def test_a_socket_that_nobody_listens_at_is_said(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file system needs root")
    console = Console(SPEC)
    with pytest.raises(AgentError, match="containerd takes no terminal"):
        console.give(str(tmp_path / "nobody"))
    console.close()


def test_a_bundle_without_terminals_is_said() -> None:
    with pytest.raises(AgentError, match="no file system for terminals"):
        Console({"mounts": []})


def test_terminals_by_who_has_the_other_end() -> None:
    if os.geteuid() != 0:
        pytest.skip("descriptors of other processes need root")
    program = (
        "import os, sys; m, s = os.openpty(); o, h = os.openpty(); os.close(o)\n"
        "print(m, s, h, flush=True); sys.stdin.read()"
    )
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave
    ) as process:
        assert process.stdout is not None
        numbers = [int(word) for word in process.stdout.readline().split()]
        terminals = Terminals(process.pid, [process.pid])

        def kind(number: int) -> str | None:
            opened = Path(f"/proc/{process.pid}/fd/{number}").stat()
            return terminals.kind(process.pid, number, "name", opened)

        assert [kind(number) for number in numbers] == ["pty:name"] * 3
        assert kind(2) == "left:name", "its other end is in another process"
        assert kind(0) is None
        assert {one.number for one in terminals.left([process.pid])} == {os.minor(os.fstat(slave).st_rdev)}
        process.communicate()
    os.close(master)
    os.close(slave)
