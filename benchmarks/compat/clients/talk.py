"""What conversations share."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl

BEGIN_S = 10
TIMEOUT_S = 120
"""Seconds until a program that does not answer counts as lost: before its first answer, and then."""


def filled(text: str, number: int, wrap: int = 0) -> str:
    """A text with the turn's number in it.

    It stands in place of `{n}`, with ten digits in place of `{p}`, modulo `wrap` for `{x}`, in Base64 for `{b}`.
    """
    forms = {
        "{n}": str(number),
        "{p}": f"{number:010d}",
        "{x}": str(number % wrap if wrap else number),
        "{b}": base64.b64encode(str(number).encode()).decode(),
    }
    for name, form in forms.items():
        text = text.replace(name, form)
    return text


class Conversation:
    """One connection to a program. `begin` opens it, `turn` says what was wrong with the answer, or None."""

    pause_s = 0.02
    """Seconds between two turns."""

    stream: Stream | None = None

    def begin(self) -> None:
        """Greet."""

    def begun(self) -> None:
        """The program serves: from now on it may be away for a while."""
        if self.stream is not None:
            self.stream.socket.settimeout(TIMEOUT_S)

    def turn(self, number: int) -> str | None:
        """Ask once. OSError if the connection is lost."""
        raise NotImplementedError

    def end(self, number: int) -> list[str]:  # noqa: ARG002 - some have nothing to look at
        """Look at what must be there after the last turn; what is wrong with it."""
        return []

    def close(self) -> None:
        """Close it."""


class Stream:
    """A TCP connection, read by lines or by length."""

    def __init__(self, address: str, port: int, *, tls: bool = False) -> None:
        self.socket: socket.socket = socket.create_connection((address, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(BEGIN_S)
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self.answers = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line, with its end."""
        line = self.answers.readline()
        if not line.endswith(b"\n"):
            raise OSError(f"the program closed the connection after {line!r}")
        return line

    def read(self, size: int) -> bytes:
        """So many bytes."""
        data = self.answers.read(size)
        if len(data) != size:
            raise OSError("the program closed the connection")
        return data

    def until(self, end: bytes) -> bytes:
        """All bytes before this one, which is taken, too."""
        data = bytearray()
        while (byte := self.read(1)) != end:
            data += byte
        return bytes(data)

    def close(self) -> None:
        """Close it."""
        self.answers.close()
        self.socket.close()


def written(address: str, port: int, path: str) -> str:
    """A file that a web server in the container shows."""
    connection = http.client.HTTPConnection(address, port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read().decode(errors="replace") if response.status == 200 else ""
    except http.client.HTTPException as lost:
        raise OSError(repr(lost)) from lost
    finally:
        connection.close()
