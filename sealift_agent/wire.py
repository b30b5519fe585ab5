"""Messages: one JSON object a line, bulk data behind it by length."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from . import admission, codec
from .messages import LINE_LIMIT, WAITING, AgentError, Misunderstood, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from .protocol import Event

ORDER_LIMIT = 1 << 24
"""A controller's order has at most so many bytes: a container's whole description may be in it."""

LOOPBACK = "127.0.0.1"

SILENCE_S = 30
"""A controller that lives sends something at least every `agents.BEAT_S` seconds."""

WATCH_S = 0.5
SMALL_BYTES, WAITING_BYTES = 1 << 16, 1 << 20
"""Files up to this size are sent together, up to so many bytes at a time."""

ALIVE_S, SILENT_S = 2, 10
"""In the freeze an agent that is at work says so that often, and after that time is taken for one that hangs."""

ALIVE = {
    socket.TCP_KEEPIDLE: 5,
    socket.TCP_KEEPINTVL: 2,
    socket.TCP_KEEPCNT: 5,
    socket.TCP_USER_TIMEOUT: 15_000,
}
"""A host that the network has lost is missed after 15 seconds, whether something was sent to it or not: tcp(7)."""


__all__ = ["WAITING", "AgentError"]
"""Theirs is another module, which knows nothing of connections; what uses both has them from here."""


class Controller:
    """The controller at the other end of standard input and output."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def orders(self, silence_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Each order as a dict; ends when the controller is gone, or has not even sent a blank line for so long.

        What is no order is answered as one, and passed over; one without an end ends them all.
        """
        source, rest = sys.stdin.fileno(), b""
        while select.select([source], [], [], silence_s)[0] and (chunk := os.read(source, 1 << 16)):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in filter(None, lines):
                try:
                    yield parse(line)
                except Misunderstood as nonsense:
                    self.tell(error=str(nonsense))
            if len(rest) > ORDER_LIMIT:
                return

    def tell(self, **message: Any) -> None:
        """Send one message. A controller that is gone is no reason to stop: the hosts settle it between them."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError, OSError):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()

    def event(self, event: Event, at_ns: int | None = None) -> None:
        """Something happened: now, or then, by this host's monotonic clock."""
        self.tell(**codec.encode_event(event, time.monotonic_ns() if at_ns is None else at_ns))


class Link:
    """A connection to another agent through the tunnel."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self.socket = connection
        self.reader = io.BufferedReader(socket.SocketIO(connection, "r"), 1 << 16)

    @classmethod
    def connect(cls, address: str, port: int, token: str, timeout: float = 20) -> Link:
        """Connect to a listening agent; each side proves that it knows the token. OSError if there is none."""
        return cls(admission.connect(address, port, token, timeout=timeout))

    def send(self, **message: Any) -> None:
        """Send one message."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message; AgentError when the other side is gone, sends none, or is silent for `timeout` seconds."""
        self.socket.settimeout(timeout)
        try:
            line = self.reader.readline(LINE_LIMIT)
        except (OSError, ValueError) as lost:
            raise AgentError(f"the connection to the other host was lost: {lost}") from lost
        finally:
            with contextlib.suppress(OSError):
                self.socket.settimeout(None)
        if not line.endswith(b"\n"):
            raise AgentError("the other host closed the connection")
        return parse(line)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is sent in the block shares packets: dozens of small files would make as many of them."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            yield
        finally:
            with contextlib.suppress(
                OSError
            ):  # it may be lost by now, which who waits for an answer finds out
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def send_files(self, files: Iterable[tuple[Path, int]]) -> None:
        """Send the first bytes of each of these files, as many as are given. Small ones go together.

        An image is small, and a container with hundreds of processes has thousands: system calls would be most of it.
        """
        waiting = bytearray()
        for path, size in files:
            with path.open("rb", buffering=0) as data:
                if size <= SMALL_BYTES:
                    piece = data.read(size)
                    sent = len(piece)
                    waiting += piece
                if size > SMALL_BYTES or len(waiting) > WAITING_BYTES:
                    self.socket.sendall(waiting)
                    waiting.clear()
                if size > SMALL_BYTES:
                    sent = self.socket.sendfile(data, 0, size)
            if sent != size:
                raise AgentError(f"{path} shrank while it was sent")
        self.socket.sendall(waiting)

    def receive_file(self, path: Path, size: int, timeout: float | None = None) -> None:
        """Write the next `size` bytes to a file. AgentError if nothing comes for `timeout` seconds."""
        self.socket.settimeout(timeout)
        with path.open("wb") as data:
            left = size
            while left:
                try:
                    chunk = self.reader.read1(min(left, 1 << 20))
                except OSError as lost:
                    raise AgentError(f"nothing more comes from the other host: {lost}") from lost
                if not chunk:
                    raise AgentError("the other host closed the connection in the middle of a file")
                data.write(chunk)
                left -= len(chunk)

    def receive_bytes(self, size: int) -> bytes:
        """The next `size` bytes."""
        data = self.reader.read(size)
        if len(data) != size:
            raise AgentError("the other host closed the connection in the middle of what it sent")
        return data

    def rest(self) -> Iterator[bytes]:
        """All that comes up to the end of the connection, in pieces.

        What came right behind a message has been read with it: the socket itself no longer has it.
        """
        return iter(lambda: self.reader.read1(1 << 20), b"")

    def is_lost(self) -> bool:
        """Whether the other side has ended the connection, or the network has."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """End the connection. The other side sees it, and so does a thread of this one that waits for a message."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.reader.close()
            self.socket.close()


class Alive:
    """From its making to its `end` somebody is told that this agent is at work: he waits for a longer word of it."""

    def __init__(self, say: Callable[[], object]) -> None:
        self._say = say
        self._over = threading.Event()
        threading.Thread(target=self._tell, daemon=True, name="alive").start()

    def _tell(self) -> None:
        with contextlib.suppress(OSError):  # lost: who waits for an answer finds out
            while not self._over.wait(ALIVE_S):
                self._say()

    def end(self) -> None:
        """No more."""
        self._over.set()


@contextlib.contextmanager
def watched(link: Link, address: str, ports: Sequence[int]) -> Iterator[None]:
    """While others send to ports of the host at the other end: once its link is lost, they fail instead of hoping on.

    Their connections are cut by the kernel (`ss --kill`). A CRIU that was killed instead would leave what it has put
    into the processes behind in them.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            if link.is_lost():
                for port in ports:
                    theirs = ["dst", f"{address}:{port}"]
                    subprocess.run(["ss", "--kill", *theirs], capture_output=True, check=False)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def listen(address: str, port: int = 0) -> socket.socket:
    """A listener on that port of that address, or on a free one."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(4)
    return listener
