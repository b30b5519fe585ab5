"""Conversations with databases: a row is written in each turn, and a counter that answers is one more than before."""

from __future__ import annotations

import struct
import time

from talk import Conversation, Stream


class PostgreSQL(Conversation):
    """Protocol 3.0 (PostgreSQL's documentation, "Frontend/Backend Protocol"), as far as simple queries go."""

    def __init__(self, address: str, port: int, user: str, database: str) -> None:
        self.stream = Stream(address, port)
        body = struct.pack(">i", 3 << 16) + f"user\0{user}\0database\0{database}\0\0".encode()
        self.stream.send(struct.pack(">i", 4 + len(body)) + body)

    def begin(self) -> None:
        """Make the tables."""
        self._until_ready()
        self.query(
            "DROP TABLE IF EXISTS log; DROP TABLE IF EXISTS counter; CREATE TABLE log (n int PRIMARY KEY); "
            "CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)"
        )

    def turn(self, number: int) -> str | None:
        """Write a row and count, in one transaction."""
        rows = self.query(
            f"INSERT INTO log VALUES ({number}); UPDATE counter SET n = n + 1 RETURNING n"  # noqa: S608 - a number of ours
        )
        return None if rows == [str(number)] else f"expected {number}, got {rows}"

    def end(self, number: int) -> list[str]:
        """All rows are there, once."""
        rows = self.query("SELECT count(*) * 1000000000 + sum(n) FROM log")
        expected = str(number * 1000000000 + number * (number + 1) // 2)
        return [] if rows == [expected] else [f"the log: expected {expected}, got {rows}"]

    def query(self, text: str) -> list[str]:
        """The first column of all rows."""
        body = text.encode() + b"\0"
        self.stream.send(b"Q" + struct.pack(">i", 4 + len(body)) + body)
        return self._until_ready()

    def _until_ready(self) -> list[str]:
        rows: list[str] = []
        while True:
            kind, length = struct.unpack(">ci", self.stream.read(5))
            body = self.stream.read(length - 4)
            if kind == b"E":
                raise OSError(body.replace(b"\0", b" ").decode(errors="replace"))
            if kind == b"D":
                (size,) = struct.unpack_from(">i", body, 2)
                rows.append(body[6 : 6 + size].decode())
            if kind == b"Z":
                return rows

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


class MySQL(Conversation):
    """Protocol 4.1 (MariaDB's documentation, "Connecting" and "COM_QUERY"), for a user without a password."""

    CAPABILITIES = 0x1 | 0x200 | 0x8000 | 0x80000 | 0x2000
    """Long password, protocol 4.1, secure connection, plugin authentication, transactions."""

    def __init__(self, address: str, port: int, user: str) -> None:
        self.stream = Stream(address, port)
        self.user = user

    def begin(self) -> None:
        """Log in and make the tables."""
        self._check(self._packet())  # the server's greeting
        body = struct.pack("<IIB23x", self.CAPABILITIES, 1 << 24, 45) + self.user.encode() + b"\0\0"
        self._send(body + b"mysql_native_password\0", 1)
        answer = self._packet()
        if answer[:1] == b"\xfe":  # another way to log in: without a password its answer is empty
            self._send(b"", 3)
            answer = self._packet()
        self._check(answer)
        for statement in (
            "CREATE DATABASE IF NOT EXISTS compat",
            "DROP TABLE IF EXISTS compat.log",
            "CREATE TABLE compat.log (n INT AUTO_INCREMENT PRIMARY KEY, v INT) ENGINE=InnoDB",
        ):
            self.query(statement)

    def turn(self, number: int) -> str | None:
        """Write a row and read it back."""
        self.query(f"INSERT INTO compat.log (v) VALUES ({number})")  # noqa: S608 - a number of ours
        rows = self.query("SELECT CONCAT(n, ' ', v) FROM compat.log ORDER BY n DESC LIMIT 1")
        return None if rows == [f"{number} {number}"] else f"expected {number}, got {rows}"

    def end(self, number: int) -> list[str]:
        """All rows are there, once."""
        rows = self.query("SELECT CONCAT(COUNT(*), ' ', SUM(v)) FROM compat.log")
        expected = f"{number} {number * (number + 1) // 2}"
        return [] if rows == [expected] else [f"the log: expected {expected}, got {rows}"]

    def query(self, text: str) -> list[str]:
        """The first column of all rows."""
        self._send(b"\x03" + text.encode(), 0)
        answer = self._packet()
        self._check(answer)
        if answer[:1] == b"\0":
            return []
        while self._packet()[:1] != b"\xfe":
            pass  # the columns
        rows = []
        while (row := self._packet())[:1] != b"\xfe":
            rows.append(row[1 : 1 + row[0]].decode())
        return rows

    def _send(self, body: bytes, number: int) -> None:
        self.stream.send(struct.pack("<I", len(body))[:3] + bytes([number]) + body)

    def _packet(self) -> bytes:
        head = self.stream.read(4)
        return self.stream.read(int.from_bytes(head[:3], "little"))

    def _check(self, answer: bytes) -> None:
        if answer[:1] == b"\xff":
            raise OSError(answer[3:].decode(errors="replace"))

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


def element(tag: int, *parts: bytes) -> bytes:
    """An element of BER (X.690) with a length of up to 65535."""
    body = b"".join(parts)
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + body


def integer(number: int, tag: int = 2) -> bytes:
    """An INTEGER of BER that is not negative."""
    return element(tag, number.to_bytes(number.bit_length() // 8 + 1, "big"))


class Directory(Conversation):
    """LDAP (RFC 4511): an entry's description is replaced in each turn, and read back."""

    def __init__(self, address: str, port: int, user: str, password: str, entry: str) -> None:
        self.stream = Stream(address, port)
        self.user, self.password, self.entry = user, password, entry
        self.message = 0

    def begin(self) -> None:
        """Log in."""
        self._ask(
            element(
                0x60,
                integer(3),
                element(4, self.user.encode()),
                element(0x80, self.password.encode()),
            )
        )

    def turn(self, number: int) -> str | None:
        """Replace and read."""
        value = str(number).encode()
        changed = element(0x30, element(4, b"description"), element(0x31, element(4, value)))
        change = element(0x30, integer(2, 10), changed)
        self._ask(element(0x66, element(4, self.entry.encode()), element(0x30, change)))
        question = element(
            0x63,
            element(4, self.entry.encode()),
            integer(0, 10),  # the entry itself
            integer(0, 10),
            integer(0),
            integer(0),
            element(1, b"\0"),
            element(0x87, b"objectClass"),
            element(0x30, element(4, b"description")),
        )
        found = self._ask(question)
        if not found.endswith(element(0x31, element(4, value))):
            return f"expected {number}, got {found[-40:]!r}"
        return None

    def _ask(self, operation: bytes) -> bytes:
        """Send a request. Returns the entries that come before the result."""
        self.message += 1
        self.stream.send(element(0x30, integer(self.message), operation))
        found = b""
        while True:
            body = self._element()
            size = body[1]
            if int.from_bytes(body[2 : 2 + size], "big") != self.message:
                raise OSError(f"an answer to another request than {self.message}: {body!r}")
            answer = body[2 + size :]
            if answer[0] == 0x64:
                found = answer
                continue
            status = answer[answer.index(b"\x0a\x01") + 2]
            if status:
                raise OSError(f"the directory refuses: {answer!r}")
            return found

    def _element(self) -> bytes:
        head = self.stream.read(2)
        size = head[1]
        if size >= 128:
            size = int.from_bytes(self.stream.read(size - 128), "big")
        return self.stream.read(size)

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


class ZooKeeper(Conversation):
    """ZooKeeper's protocol (its `zookeeper.jute`): a node's data is replaced in each turn, and read back.

    A node's version counts the replacements.
    """

    CREATE, GET, SET = 1, 4, 5

    def __init__(self, address: str, port: int) -> None:
        self.stream = Stream(address, port)
        self.request = 0
        self.path = b""

    def begin(self) -> None:
        """Open a session and make the node."""
        self._send(struct.pack(">iqiq", 0, 0, 60000, 0) + self._text(bytes(16)))
        self._packet()
        path = f"/compat{time.time_ns()}".encode()
        self.path = self._text(path)
        everybody = struct.pack(">ii", 1, 31) + self._text(b"world") + self._text(b"anyone")
        self._ask(self.CREATE, self.path + self._text(b"0") + everybody + struct.pack(">i", 0))

    def turn(self, number: int) -> str | None:
        """Replace and read."""
        value = self._text(str(number).encode())
        self._ask(self.SET, self.path + value + struct.pack(">i", number - 1))
        answer = self._ask(self.GET, self.path + b"\0")
        (version,) = struct.unpack_from(">i", answer, len(value) + 32)
        if not answer.startswith(value) or version != number:
            return f"expected {number}, got {answer!r}"
        return None

    def _ask(self, kind: int, body: bytes) -> bytes:
        self.request += 1
        self._send(struct.pack(">ii", self.request, kind) + body)
        answer = self._packet()
        number, _, status = struct.unpack_from(">iqi", answer)
        if number != self.request or status:
            raise OSError(f"request {self.request}: answer to {number}, status {status}")
        return answer[16:]

    def _text(self, data: bytes) -> bytes:
        return struct.pack(">i", len(data)) + data

    def _send(self, body: bytes) -> None:
        self.stream.send(struct.pack(">i", len(body)) + body)

    def _packet(self) -> bytes:
        (size,) = struct.unpack(">i", self.stream.read(4))
        return self.stream.read(size)

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()
