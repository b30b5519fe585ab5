"""Increments one Redis counter over one TCP connection until standard input ends.

Runs on the client's host with the standard library only. Arguments: ADDRESS PORT PAUSE, the last
in seconds between an answer and the next question (0: without pause). Prints `ready`, then one JSON object:
every answer must be exactly one more than the one before, and each response time is kept.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from responses import Responses

WORST = 20


def main(address: str, port: str, pause: str) -> None:
    connection = socket.create_connection((address, int(port)), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(300)
    answers = connection.makefile("rb")
    command = b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n"
    count, error = 0, None
    faults: list[list[int]] = []
    kept = Responses()
    print("ready", flush=True)
    try:
        while not select.select([sys.stdin], [], [], float(pause))[0]:
            sent = time.monotonic()
            connection.sendall(command)
            line = answers.readline()
            now = time.monotonic()
            if not line.startswith(b":"):
                error = f"answer {line!r}"
                break
            count += 1
            kept.add(sent, now)
            if int(line[1:]) != count:
                faults.append([count, int(line[1:])])
                count = int(line[1:])
    except OSError as lost:
        error = repr(lost)
    worst = sorted(zip(kept.at, kept.took, strict=True), key=lambda item: -item[1])[:WORST]
    found = kept.findings(len(kept.at), faults, error)
    found["worst_ms"] = [[round(at, 4), round(took, 3)] for at, took in worst]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
