"""What a client says to a program in one turn, and what it must hear. `watch.py` has the loop.

A turn has a number, which counts from one. A conversation sends it, and the program must give it back in the right
place: stored and read again, counted, or computed. So a lost, repeated or exchanged message is noticed in its turn.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from typing import Any

import databases
import names
import queues
import sessions
from talk import Conversation, Stream, filled, written

KEPT_S = 30


class Dialogue(Conversation):
    """Lines of text: each question has a pattern that the answer must match before one that says it is refused.

    `greeting` is what the program says first. `first` is asked once, `each` in every turn: pairs of a question and a
    pattern. `{n}` is the turn's number, `{x}` the number modulo `wrap`.
    """

    def __init__(
        self,
        address: str,
        port: int,
        each: list[list[str]],
        first: list[list[str]] | None = None,
        greeting: str = "",
        refused: str = r"(?i)^(-|ERR|[45]\d\d[ -]|\S+ (NO|BAD)\b)",
        tls: bool = False,
        wrap: int = 0,
        pause_s: float = 0.02,
        kept: list[str] | None = None,
    ) -> None:
        self.stream = Stream(address, port, tls=tls)
        self.address, self.kept, self.pause_s = address, kept, pause_s
        self.greeting, self.first, self.each = greeting, first or [], each
        self.refused, self.wrap = re.compile(refused), wrap

    def begin(self) -> None:
        """Hear the greeting and ask what is asked once."""
        if self.greeting:
            self._until(self.greeting)
        for question, expected in self.first:
            self._ask(question, expected, 0)

    def turn(self, number: int) -> str | None:
        """Ask all questions of a turn."""
        for question, expected in self.each:
            fault = self._ask(question, expected, number)
            if fault is not None:
                return fault
        return None

    def _ask(self, question: str, expected: str, number: int) -> str | None:
        if question:
            self.stream.send(filled(question, number, self.wrap).encode() + b"\r\n")
        return self._until(filled(expected, number, self.wrap))

    def _until(self, expected: str) -> str | None:
        pattern = re.compile(expected)
        heard = []
        for _ in range(300):
            line = self.stream.line().decode(errors="replace").rstrip("\r\n")
            if pattern.search(line):
                return None
            heard.append(line)
            if self.refused.search(line):
                break
        return f"expected {expected!r}, heard {heard[-3:]}"

    def end(self, number: int) -> list[str]:
        """What was sent is kept, each once."""
        if self.kept is None:
            return []
        web, path, pattern = self.kept
        deadline = time.monotonic() + KEPT_S
        while True:
            found = sorted(map(int, re.findall(pattern, written(self.address, int(web), path))))
            if found == list(range(1, number + 1)):
                return []
            if time.monotonic() > deadline:
                return [f"of {number} {len(found)} are kept, {len(set(found))} of them different ones"]
            time.sleep(0.5)

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


class Web(Conversation):
    """Requests over one HTTP connection. `expected` is a pattern of the answer's body.

    A group of the pattern that is named `count` is a number that is one more in each turn.
    `lines` is for files of numbered lines of 16 bytes: the line of the turn's number is asked for as a range of bytes.
    """

    def __init__(
        self,
        address: str,
        port: int,
        path: str,
        expected: str = "",
        lines: int = 0,
        method: str = "GET",
        body: str = "",
        headers: dict[str, str] | None = None,
        tls: bool = False,
        wrap: int = 0,
        tunnel: str = "",
        pause_s: float = 0.02,
        before: list[list[str]] | None = None,
    ) -> None:
        self.path, self.expected, self.lines, self.method, self.body = path, expected, lines, method, body
        self.headers, self.wrap, self.before = headers or {}, wrap or lines, before or []
        self.count: int | None = None
        self.pause_s = pause_s
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address, port, timeout=120, context=context
            )
        else:
            self.connection = http.client.HTTPConnection(address, port, timeout=120)
        if tunnel:
            host, _, inner = tunnel.partition(":")
            self.connection.set_tunnel(host, int(inner))

    def begin(self) -> None:
        """Connect."""
        self.connection.connect()
        assert self.connection.sock is not None  # noqa: S101 - it is connected
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.auto_open = 0  # a connection that was closed is an error

    def turn(self, number: int) -> str | None:
        """Make the requests of a turn."""
        for method, path, body in self.before:
            status, _, text = self._request(method, path, body, self.headers, number)
            if status >= 300:
                return f"{method} {path}: {status} {text[:100]!r}"
        headers = dict(self.headers)
        expected = filled(self.expected, number, self.wrap)
        if self.lines:
            first = 16 * (number % self.lines)
            headers["Range"] = f"bytes={first}-{first + 15}"
            expected = f"^{number % self.lines:015d}\n$"
        status, reason, text = self._request(self.method, self.path, self.body, headers, number)
        match = re.search(expected, text)
        if status not in {200, 206} or match is None:
            return f"expected {expected!r}, got {status} {reason} {text[:200]!r}"
        count = match.groupdict().get("count")
        if count is not None:
            before, self.count = self.count, int(count)
            if before is not None and self.count != before + 1:
                return f"expected the count {before + 1}, got {self.count}"
        return None

    def _request(
        self, method: str, path: str, body: str, headers: dict[str, str], number: int
    ) -> tuple[int, str, str]:
        try:
            sent = filled(body, number, self.wrap).encode() if body else None
            self.connection.request(method, filled(path, number, self.wrap), sent, headers)
            response = self.connection.getresponse()
            text = response.read().decode(errors="replace")
        except http.client.HTTPException as lost:
            raise OSError(f"the connection ended: {lost!r}") from lost
        if self.connection.sock is None:
            raise OSError("the server closed the connection after an answer")
        return response.status, response.reason, text

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


KINDS: dict[str, Any] = {
    "dialogue": Dialogue,
    "web": Web,
    "postgresql": databases.PostgreSQL,
    "mysql": databases.MySQL,
    "zookeeper": databases.ZooKeeper,
    "ldap": databases.Directory,
    "mqtt": queues.Mqtt,
    "stomp": queues.Stomp,
    "gearman": queues.Gearman,
    "dns": names.Names,
    "dns by datagrams": names.NamesByDatagrams,
    "stun": names.Stun,
    "ntp": names.Time,
    "snmp": names.Snmp,
    "ssh": sessions.Shell,
    "journal": sessions.Journal,
    "cron": sessions.Cron,
}
