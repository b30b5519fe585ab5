"""Writes to PostgreSQL over several connections at once, without end, until standard input ends; then reads it all.

Runs on the client's host with the standard library only; speaks PostgreSQL's protocol 3.0 (documentation, chapter
"Frontend/Backend Protocol"), as far as simple queries go. Arguments: ADDRESS PORT WRITERS [PAUSE_S], the pause between
one writer's transactions. Prints `ready`, then one JSON object: each counter must answer one more than before, and
every acknowledged row must be there at the end, once.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from typing import Any

from responses import Responses


class Connection:
    """One session of the superuser that the workload runs as."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.create_connection((address, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(300)
        self.answers = self.socket.makefile("rb")
        body = struct.pack(">i", 3 << 16) + b"user\0workload\0database\0postgres\0\0"
        self.socket.sendall(struct.pack(">i", 4 + len(body)) + body)
        self._until_ready()

    def query(self, text: str) -> list[list[str]]:
        """All rows that the statements return."""
        body = text.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack(">i", 4 + len(body)) + body)
        return self._until_ready()

    def _until_ready(self) -> list[list[str]]:
        rows: list[list[str]] = []
        while True:
            kind, length = struct.unpack(">ci", self._read(5))
            body = self._read(length - 4)
            if kind == b"E":
                raise OSError(body.replace(b"\0", b" ").decode(errors="replace"))
            if kind == b"D":
                rows.append(_row(body))
            if kind == b"Z":
                return rows

    def _read(self, size: int) -> bytes:
        data = self.answers.read(size)
        if len(data) != size:
            raise OSError("the server closed the connection")
        return data


def _row(body: bytes) -> list[str]:
    (columns,) = struct.unpack_from(">h", body)
    values, position = [], 2
    for _ in range(columns):
        (length,) = struct.unpack_from(">i", body, position)
        values.append(body[position + 4 : position + 4 + max(length, 0)].decode())
        position += 4 + max(length, 0)
    return values


class Writer(threading.Thread):
    """One connection that counts: a row and an update in each transaction."""

    def __init__(self, number: int, connection: Connection, over: threading.Event, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.number, self.connection, self.over, self.pause_s = number, connection, over, pause_s
        self.acknowledged = 0
        self.times: list[tuple[float, float]] = []
        self.faults: list[Any] = []
        self.error: str | None = None

    def run(self) -> None:
        """Write until told to end."""
        try:
            while not self.over.wait(self.pause_s):
                following = self.acknowledged + 1
                sent = time.monotonic()
                rows = self.connection.query(
                    f"INSERT INTO log VALUES ({self.number}, {following}); "  # noqa: S608 - numbers of our own
                    f"UPDATE counter SET number = number + 1 WHERE writer = {self.number} RETURNING number"
                )
                self.times.append((sent, time.monotonic()))
                self.acknowledged = following
                if rows != [[str(following)]]:
                    self.faults.append([self.number, following, rows])
        except OSError as lost:
            self.error = f"writer {self.number}: {lost!r}"


def compare(connection: Connection, writers: list[Writer]) -> list[Any]:
    """What the database lacks of what it acknowledged, or has too much."""
    log = connection.query(
        "SELECT writer, count(*), min(number), max(number) FROM log GROUP BY writer ORDER BY writer"
    )
    counters = connection.query("SELECT writer, number FROM counter ORDER BY writer")
    expected = [[str(w.number), str(w.acknowledged), "1", str(w.acknowledged)] for w in writers]
    faults: list[Any] = [["log", expected, log]] if log != expected else []
    expected = [[str(w.number), str(w.acknowledged)] for w in writers]
    return [*faults, ["counter", expected, counters]] if counters != expected else faults


def main(address: str, port: str, count: str, pause_s: str = "0") -> None:
    """Write until standard input ends."""
    over = threading.Event()
    writers = [
        Writer(number, Connection(address, int(port)), over, float(pause_s)) for number in range(int(count))
    ]
    reader = Connection(address, int(port))
    kept = Responses()
    for writer in writers:
        writer.start()
    while any(not writer.times and writer.error is None for writer in writers):
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.read()
    over.set()
    for writer in writers:
        writer.join()
    for sent, now in sorted(pair for writer in writers for pair in writer.times):
        kept.add(sent, now)
    faults = [fault for writer in writers for fault in writer.faults]
    errors = [writer.error for writer in writers if writer.error]
    if not errors:
        try:
            faults += compare(reader, writers)
        except OSError as lost:
            errors.append(f"reader: {lost!r}")
    print(json.dumps(kept.findings(len(kept.at), faults, "; ".join(errors) or None)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
