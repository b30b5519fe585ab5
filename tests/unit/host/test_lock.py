"""A network namespace in which nothing is sent while its connections are read or made again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sealift_agent import interposed
from sealift_agent.network import inside, lock
from sealift_agent.network.lock import Lock, Unlocking
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADDRESSES = ["127.0.0.1", "::1"]
SOON_S = 0.2


@pytest.fixture
def namespace() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    up = ["ip", "link", "set", "lo", "up"]
    descriptor, _ = inside.run_in_new(lambda: subprocess.run(up, check=True))
    yield f"/proc/{os.getpid()}/fd/{descriptor}"
    os.close(descriptor)


def tables(namespace: str) -> str:
    words = ["nsenter", f"--net={namespace}", "nft", "list", "ruleset"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def connect(address: str) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as door:
        near = socket.socket(family)
        near.connect(door.getsockname())
        return near, door.accept()[0]


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_is_refused_is_not_lost_and_the_connection_stays(namespace: str, address: str) -> None:
    made = Lock(namespace)
    near, far = inside.run(namespace, lambda: connect(address))
    far.settimeout(SOON_S)
    near.sendall(b"before")
    assert far.recv(9) == b"before"
    made.shut()
    near.sendall(b"meanwhile")
    with pytest.raises(TimeoutError):
        far.recv(9)
    made.open()
    far.settimeout(5)
    assert far.recv(9) == b"meanwhile"
    made.close()
    near.sendall(b"after")
    assert far.recv(9) == b"after"
    near.close()
    far.close()


@pytest.mark.parametrize("address", ADDRESSES)
def test_nobody_is_told_that_there_is_no_such_connection(namespace: str, address: str) -> None:
    made = Lock(namespace, shut=True)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside.run(namespace, lambda: socket.socket(family)) as lonely:
        lonely.settimeout(SOON_S)
        with pytest.raises(TimeoutError):
            lonely.connect((address, 7))
    made.open()
    with (
        inside.run(namespace, lambda: socket.socket(family)) as lonely,
        pytest.raises(ConnectionRefusedError),
    ):
        lonely.connect((address, 7))
    made.close()


def test_packets_with_criu_s_mark_pass(namespace: str) -> None:
    made = Lock(namespace, shut=True)

    def ends() -> tuple[socket.socket, socket.socket]:
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        far.bind(("127.0.0.1", 0))
        return far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    far, near = inside.run(namespace, ends)
    far.settimeout(SOON_S)
    with pytest.raises(PermissionError):
        near.sendto(b"no", far.getsockname())
    near.setsockopt(socket.SOL_SOCKET, 36, lock.CRIU_MARK)  # SO_MARK
    near.sendto(b"yes", far.getsockname())
    assert far.recv(9) == b"yes"
    for one in (far, near):
        one.close()
    made.close()


def test_a_lock_that_was_left_behind_is_replaced_and_removed(namespace: str) -> None:
    Lock(namespace, shut=True)._socket.close()
    made = Lock(namespace)
    assert "policy accept" in tables(namespace)
    made.shut()
    assert "policy drop" in tables(namespace)
    made._socket.close()
    lock.remove(namespace)
    assert tables(namespace) == ""
    lock.remove(namespace)
    lock.remove("/proc/0/ns/net")


def test_a_lock_that_somebody_has_flushed_is_an_error_and_can_be_closed(namespace: str) -> None:
    made = Lock(namespace)
    subprocess.run(["nsenter", f"--net={namespace}", "nft", "flush", "ruleset"], check=True)
    with pytest.raises(AgentError, match="can't be locked: No such file"):
        made.shut()
    made.close()
    made.close()
    with pytest.raises(AgentError, match="can't be locked"):
        made.open()


def test_a_namespace_that_is_gone_is_an_error() -> None:
    with pytest.raises(AgentError, match="can't be locked"):
        Lock("/proc/0/ns/net")


class PlayedLock:
    def __init__(self, failure: AgentError | None = None) -> None:
        self.done: list[str] = []
        self._failure = failure

    def open(self) -> None:
        self.done.append("open")
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self.done.append("close")


ATTACH = "import ctypes; ctypes.CDLL(None).ptrace({:#x}, 1 << 22, 0, ctypes.c_void_p({})); print('on')"
INTERRUPT, OPTIONS = (0x4207, 0), (0x4200, 1)
"""CRIU's PTRACE_INTERRUPT, which comes early for a shadow stack, and PTRACE_O_TRACESYSGOOD when all is there again."""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(interposed, "_path", lambda: tmp_path / "interposed.so")
    if not interposed.obtainable():
        pytest.skip("this machine has no C compiler")
    return interposed.library("restore")


def criu(
    library: Path, directory: Path, asked: tuple[int, int] = OPTIONS
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LD_PRELOAD": str(library), "SEALIFT_ARMED": str(directory)}
    return subprocess.run(
        [sys.executable, "-c", ATTACH.format(*asked)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        timeout=30,
    )


def test_criu_goes_on_when_the_lock_is_open(tmp_path: Path, library: Path) -> None:
    played = PlayedLock()
    unlocking = Unlocking(played, tmp_path)  # type: ignore[arg-type]
    assert criu(library, tmp_path, INTERRUPT).stdout == "on\n"
    assert played.done == []
    assert criu(library, tmp_path).stdout == "on\n"
    assert played.done == ["open"]
    unlocking.open()
    unlocking.close()
    assert played.done == ["open", "close"], "it was open"


def test_without_criu_s_question_the_lock_is_opened_in_the_end(tmp_path: Path) -> None:
    played = PlayedLock()
    unlocking = Unlocking(played, tmp_path)  # type: ignore[arg-type]
    unlocking.open()
    unlocking.close()
    assert played.done == ["open", "close"]


def test_a_lock_that_does_not_open_fails_the_restore(tmp_path: Path, library: Path) -> None:
    unlocking = Unlocking(PlayedLock(AgentError("no")), tmp_path)  # type: ignore[arg-type]
    assert criu(library, tmp_path).stdout == "on\n"
    with pytest.raises(AgentError, match="no"):
        unlocking.open()
    unlocking.close()


def test_criu_waits_for_nobody_in_a_dump_or_when_the_agent_is_dead(tmp_path: Path, library: Path) -> None:
    began = time.monotonic()
    assert criu(library, tmp_path).stdout == "on\n"
    unlocking = Unlocking(PlayedLock(), tmp_path)  # type: ignore[arg-type]
    unlocking.close()
    assert criu(library, tmp_path).stdout == "on\n"
    assert time.monotonic() - began < 4


LAST_PACKET = """
import socket, struct, sys
with socket.socket() as restored, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
    scales, windows = struct.pack("II", 3, 7 | 9 << 16), struct.pack("5I", 1, 65536 << 1, 1 << 20, 65536, 1)
    for name, value in ((22, scales), (29, windows)):  # TCP_REPAIR_OPTIONS, TCP_REPAIR_WINDOW
        try:
            restored.setsockopt(socket.IPPROTO_TCP, name, value)
        except OSError:
            pass  # it is in no such state
    raw.sendto(bytes.fromhex(sys.argv[1]), ("127.0.0.1", int(sys.argv[2])))
"""


def checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [0x10, 0x11, 0x02])
def test_the_last_packet_of_a_half_closed_connection_has_its_peer_s_window(
    library: Path, version: int, flags: int
) -> None:
    head = (
        bytes.fromhex("45000028") + bytes(5) + b"\x06" + bytes(10)
        if version == 4
        else b"\x60" + bytes(5) + b"\x06" + bytes(33)
    )

    def packet(window: int) -> bytes:
        parts = (1, 2, 3, 4, 0x50, flags, window)
        tcp = b"".join(n.to_bytes(size, "big") for n, size in zip(parts, (2, 2, 4, 4, 1, 1, 2), strict=True))
        return head + tcp + checksum(tcp + bytes(4)).to_bytes(2, "big") + bytes(2)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.settimeout(5)
        words = [sys.executable, "-c", LAST_PACKET, packet(0).hex(), str(taken.getsockname()[1])]
        subprocess.run(words, check=True, env={**os.environ, "LD_PRELOAD": str(library)}, timeout=30)
        assert taken.recv(999) == (packet(1024) if flags & 0x10 else packet(0))
