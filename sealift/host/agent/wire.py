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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

LINE_LIMIT = 1 << 20
WAITING = "waiting"
"""The gateway's word for a group that is not complete."""

UNDECIDED = "undecided"
"""A host's word for an outcome that the gateway has not told it."""

LOOPBACK = "127.0.0.1"

SILENCE_S = 30
"""A controller that lives sends something at least every `agents.BEAT_S` seconds."""

WATCH_S = 0.5
ALIVE = {
    socket.TCP_KEEPIDLE: 5,
    socket.TCP_KEEPINTVL: 2,
    socket.TCP_KEEPCNT: 5,
    socket.TCP_USER_TIMEOUT: 15_000,
}
"""A host that the network has lost is missed after 15 seconds, whether something was sent to it or not: tcp(7)."""


class AgentError(Exception):
    """One sentence for a person; `step` names the step of the protocol that failed."""

    def __init__(self, message: str, step: str | None = None) -> None:
        super().__init__(message)
        self.step = step


class Controller:
    """The controller at the other end of standard input and output."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def orders(self, silence_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Each order as a dict; ends when the controller is gone, or has not even sent a blank line for so long."""
        source, rest = sys.stdin.fileno(), b""
        while select.select([source], [], [], silence_s)[0] and (chunk := os.read(source, 1 << 16)):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines if line)

    def tell(self, **message: Any) -> None:
        """Send one message. A controller that is gone is no reason to stop: the hosts settle it between them."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError, OSError):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()

    def event(self, name: str, **facts: Any) -> None:
        """Something happened, now, by this host's monotonic clock."""
        self.tell(event=name, at_ns=time.monotonic_ns(), **facts)


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
        """Connect to a listening agent and show the token.

        Patient, since a tunnel whose end has just got another key may lose packets until its next handshake.
        """
        link = cls(socket.create_connection((address, port), timeout=timeout))
        link.socket.settimeout(None)
        link.send(token=token)
        return link

    @classmethod
    def accept(cls, listener: socket.socket, token: str, timeout: float | None = None) -> Link:
        """The first peer that knows the token; others are turned away."""
        listener.settimeout(timeout)
        while True:
            connection, _ = listener.accept()
            connection.settimeout(10)
            link = cls(connection)
            try:
                hello = link.receive()
            except (OSError, ValueError, AgentError):
                hello = {}
            if hello.get("token") == token:
                connection.settimeout(None)
                return link
            link.close()

    def send(self, **message: Any) -> None:
        """Send one message."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message; AgentError when the other side is gone or silent for `timeout` seconds."""
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
        message: dict[str, Any] = json.loads(line)
        return message

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

    def send_file(self, path: Path, size: int) -> None:
        """Send the first `size` bytes of a file."""
        with path.open("rb") as data:
            sent = self.socket.sendfile(data, 0, size) if size else 0  # sendfile refuses to send nothing
        if sent != size:
            raise AgentError(f"{path} shrank while it was sent")

    def receive_file(self, path: Path, size: int) -> None:
        """Write the next `size` bytes to a file."""
        with path.open("wb") as data:
            left = size
            while left:
                chunk = self.reader.read(min(left, 1 << 20))
                if not chunk:
                    raise AgentError("the other host closed the connection in the middle of a file")
                data.write(chunk)
                left -= len(chunk)

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


def serve(
    handlers: Mapping[str, Callable[..., Any]], controller: Controller, gone: Callable[[], object]
) -> None:
    """Answer the controller's orders, one after the other, until it is gone; then call `gone`."""
    for order in controller.orders(SILENCE_S):
        name = order.pop("order")
        number = order.pop("number")
        try:
            result = handlers[name](**order)
            controller.tell(number=number, result=result)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the controller must hear of it
            step = getattr(failure, "step", None)
            kind = "" if isinstance(failure, AgentError) else f"{type(failure).__name__}: "
            controller.tell(number=number, error=f"{kind}{failure}", step=step)
    gone()
