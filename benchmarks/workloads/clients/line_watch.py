"""Questions a service of `services/` over one or many TCP connections at once until standard input ends.

Runs on the client's host with the standard library only. Arguments: ADDRESS PORT CONNECTIONS PAUSE, the last in seconds
between two rounds of questions. Prints `ready`, then one JSON object: the service counts the lines of each connection
and says whether its memory and files are whole, so an answer that is not the next number, or not "whole", is a fault.
"""

from __future__ import annotations

import json
import select
import selectors
import socket
import sys
import time

from responses import Responses

TIMEOUT_S = 120


class Line:
    """One connection, with at most one question on its way."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.create_connection((address, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.count = 0
        self.sent = 0.0
        self.buffer = b""

    def ask(self) -> None:
        """Send a question."""
        self.sent = time.monotonic()
        self.socket.sendall(b"\n")

    def hear(self) -> bytes | None:
        """The answer, once it is complete."""
        data = self.socket.recv(1 << 12)
        if not data:
            raise OSError("the service closed the connection")
        self.buffer += data
        if not self.buffer.endswith(b"\n"):
            return None
        answer, self.buffer = self.buffer.strip(), b""
        return answer


def one_round(lines: list[Line], selector: selectors.BaseSelector, kept: Responses) -> list[list[str]]:
    """Ask on every connection and hear every answer. Returns what was wrong."""
    faults = []
    for line in lines:
        line.ask()
    waiting = len(lines)
    while waiting:
        ready = selector.select(TIMEOUT_S)
        if not ready:
            raise OSError(f"no answer in {TIMEOUT_S} s")
        for key, _ in ready:
            line = key.data
            if (answer := line.hear()) is None:
                continue
            kept.add(line.sent, time.monotonic())
            line.count += 1
            waiting -= 1
            if answer != b"%d whole" % line.count:
                faults.append([f"{line.count} whole", answer.decode(errors="replace")])
    return faults


def main(address: str, port: str, connections: str, pause: str) -> None:
    """Question until standard input ends."""
    lines = [Line(address, int(port)) for _ in range(int(connections))]
    selector = selectors.DefaultSelector()
    for line in lines:
        selector.register(line.socket, selectors.EVENT_READ, line)
    faults: list[list[str]] = []
    error = None
    kept = Responses()
    print("ready", flush=True)
    try:
        while not select.select([sys.stdin], [], [], float(pause))[0]:
            faults += one_round(lines, selector, kept)
    except OSError as lost:
        error = repr(lost)
    print(json.dumps(kept.findings(len(kept.at), faults, error)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
