"""Conversations with brokers: what is sent in a turn comes back in it, next and once."""

from __future__ import annotations

import struct

from talk import Conversation, Stream


class Mqtt(Conversation):
    """MQTT 3.1.1: a client that publishes to a topic that it has subscribed to, with acknowledgement."""

    def __init__(self, address: str, port: int) -> None:
        self.stream = Stream(address, port)

    def begin(self) -> None:
        """Connect and subscribe."""
        self._send(0x10, b"\0\4MQTT\4\2\0\0\0\6compat")
        if self._packet() != (0x20, b"\0\0"):
            raise OSError("the broker refuses the connection")
        self._send(0x82, b"\0\1\0\6compat\0")
        kind, _ = self._packet()
        if kind != 0x90:
            raise OSError("the broker refuses the subscription")

    def turn(self, number: int) -> str | None:
        """Publish, and receive it."""
        text = str(number).encode()
        self._send(0x32, b"\0\6compat" + struct.pack(">H", number % 65535 + 1) + text)
        heard = sorted((self._packet(), self._packet()))
        expected = sorted(
            ((0x30, b"\0\6compat" + text), (0x40, struct.pack(">H", number % 65535 + 1))),
        )
        return None if heard == expected else f"expected {expected}, got {heard}"

    def _send(self, kind: int, body: bytes) -> None:
        self.stream.send(bytes([kind, len(body)]) + body)

    def _packet(self) -> tuple[int, bytes]:
        kind, size = self.stream.read(2)
        return kind, self.stream.read(size)

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


class Stomp(Conversation):
    """STOMP 1.2: a queue that this client sends to and receives from."""

    def __init__(self, address: str, port: int, user: str, password: str) -> None:
        self.stream = Stream(address, port)
        self.user, self.password = user, password

    def begin(self) -> None:
        """Connect and subscribe."""
        self._send(
            "CONNECT",
            f"accept-version:1.2\nhost:/\nlogin:{self.user}\npasscode:{self.password}\nheart-beat:0,0",
        )
        if not self._frame().startswith(b"CONNECTED"):
            raise OSError("the broker refuses the connection")
        self._send("SUBSCRIBE", "id:0\ndestination:/queue/compat\nack:auto")

    def turn(self, number: int) -> str | None:
        """Send, and receive it."""
        self._send("SEND", "destination:/queue/compat\ncontent-type:text/plain", str(number))
        heard = self._frame()
        if not heard.startswith(b"MESSAGE") or heard.rpartition(b"\n\n")[2] != str(number).encode():
            return f"expected {number}, got {heard[-100:]!r}"
        return None

    def _send(self, command: str, headers: str, body: str = "") -> None:
        self.stream.send(f"{command}\n{headers}\n\n{body}\0".encode())

    def _frame(self) -> bytes:
        return self.stream.until(b"\0").lstrip(b"\r\n")

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


class Gearman(Conversation):
    """Gearman's binary protocol: this client is also the worker that does its jobs."""

    def __init__(self, address: str, port: int) -> None:
        self.client = Stream(address, port)
        self.worker = Stream(address, port)

    def begin(self) -> None:
        """Say what the worker can do."""
        self._send(self.worker, 1, b"compat")

    def turn(self, number: int) -> str | None:
        """Submit a job, take it, answer it, receive the answer."""
        text = str(number).encode()
        self._send(self.client, 7, b"compat\0\0" + text)
        created = self._packet(self.client)
        self._send(self.worker, 9, b"")
        kind, body = self._packet(self.worker)
        if (created[0], kind) != (8, 11) or body.split(b"\0", 2)[2] != text:
            return f"expected the job {number}, got {created}, {kind}, {body!r}"
        handle = body.split(b"\0")[0]
        self._send(self.worker, 13, handle + b"\0" + text)
        done = self._packet(self.client)
        return None if done == (13, handle + b"\0" + text) else f"expected {number}, got {done}"

    def _send(self, stream: Stream, kind: int, body: bytes) -> None:
        stream.send(b"\0REQ" + struct.pack(">II", kind, len(body)) + body)

    def _packet(self, stream: Stream) -> tuple[int, bytes]:
        magic, kind, size = struct.unpack(">4sII", stream.read(12))
        if magic != b"\0RES":
            raise OSError(f"not an answer: {magic!r}")
        return kind, stream.read(size)

    def close(self) -> None:
        """Close both connections."""
        self.client.close()
        self.worker.close()
