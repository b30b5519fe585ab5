"""Runs on a host (`python3 scanner.py …`): tries what listens, as somebody who knows no token.

Each listener gets silent connections that stay open, nonsense, deep nesting, and what each protocol here begins with.
What came back is said as JSON: by port, the distinct answers in hexadecimal.

With SECONDS, all that begins to listen on this host is tried; it ends then, or once there is a file of its own name
with `.end` behind it. With `-`, each line of standard input is an address and a port to try, and is answered by a line.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import time
from pathlib import Path

TRY_S, AGAIN_S = 0.5, 0.05
SILENT, ROUNDS = 70, 2
CRIU = struct.Struct("<IxxxxQQQ")
SAID = [
    b"[]\n",
    b"[" * 100_000 + b"\n",
    b'{"token": "0"}\n{"ask": "call_off"}\n',
    b'{"images": [], "links": [], "files": false}\n',
    CRIU.pack(7, 100, 0x7FFF_0000_0000, 1) * 20,
    CRIU.pack(8, 0, 0, 1) + CRIU.pack(6, 1, 0, 1) + bytes(4096),
    b"\0" + b"\0\0\0\4abcd",
    bytes(65) * 2,
    b"@RSYNCD: 31.0 sha512 sha256 md5\n#list\n",
    b"@RSYNCD: 31.0 sha512 sha256 md5\nlayer\nsealift " + b"A" * 80 + b"\n",
]


def listeners() -> set[tuple[str, int]]:
    """Address and port of all that listens here (proc(5), net/tcp: state 0A)."""
    found = set()
    with open("/proc/net/tcp") as table:  # noqa: PTH123 - nothing but this is read
        next(table)
        for line in table:
            local, _, state = line.split()[1:4]
            if state == "0A":
                address, port = local.split(":")
                host = socket.inet_ntoa(struct.pack("<I", int(address, 16)))
                found.add(("127.0.0.1" if host == "0.0.0.0" else host, int(port, 16)))
    return found


def attack(there: tuple[str, int], silent: list[socket.socket], answers: dict[int, set[str]]) -> None:
    """All that there is to try, at once."""
    with contextlib.suppress(OSError):
        silent.extend(socket.create_connection(there, TRY_S) for _ in range(SILENT))
    tried: dict[socket.socket, bytes] = {}
    for said in SAID:
        with contextlib.suppress(OSError):
            one = socket.create_connection(there, TRY_S)
            tried[one] = b""
            one.sendall(said)
    until = time.monotonic() + TRY_S
    waited_for = list(tried)
    while waited_for and (left := until - time.monotonic()) > 0:
        for one in select.select(waited_for, [], [], left)[0]:
            try:
                chunk = one.recv(1 << 16)
            except OSError:
                chunk = b""
            tried[one] += chunk
            if not chunk:
                waited_for.remove(one)
    for one, got in tried.items():
        one.close()
        answers.setdefault(there[1], set()).add(got[:400].hex())


def scan(seconds: float) -> None:
    """All that begins to listen here, until the time is over."""
    known = listeners()
    print("ready", flush=True)
    until = time.monotonic() + seconds
    tried: dict[tuple[str, int], int] = {}
    silent: list[socket.socket] = []
    answers: dict[int, set[str]] = {}
    while time.monotonic() < until and not Path(f"{sys.argv[0]}.end").exists():
        for there in sorted(listeners() - known):
            if tried.setdefault(there, 0) < ROUNDS:
                tried[there] += 1
                attack(there, silent, answers)
        time.sleep(AGAIN_S)
    say(answers)


def obey() -> None:
    """What is named, as it is named."""
    silent: list[socket.socket] = []
    for line in sys.stdin:
        address, port = line.split()
        answers: dict[int, set[str]] = {}
        attack((address, int(port)), silent, answers)
        say(answers)


def say(answers: dict[int, set[str]]) -> None:
    """What came back."""
    print(json.dumps({port: sorted(came) for port, came in answers.items()}), flush=True)


if __name__ == "__main__":
    obey() if sys.argv[1] == "-" else scan(float(sys.argv[1]))
