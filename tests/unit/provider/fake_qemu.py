"""QEMU as far as a provider sees it: QMP, a chardev to the emulated processor, an end when it is told to.

Run as `python fake_qemu.py ARGUMENTS-OF-QEMU`. With FAKE_QEMU_FAILS it dies as QEMU does without SEV.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def value(words: list[str], start: str) -> str | None:
    found = next((word for word in words if word.startswith(start)), None)
    return None if found is None else dict(part.partition("=")[::2] for part in found.split(",")[1:])["path"]


def main(words: list[str]) -> None:
    if said := os.environ.get("FAKE_QEMU_FAILS"):
        sys.exit(said)
    guest = value(words, "socket,id=sealift-processor")
    if guest:
        line = socket.socket(socket.AF_UNIX)
        line.connect(guest)
    state = "prelaunch" if "-S" in words else "running"
    qmp = value(words, "socket,id=qmp")
    assert qmp is not None
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(qmp)
    listener.listen()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        peer, _ = listener.accept()
        greeting = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 8}}, "capabilities": []}}
        peer.sendall(json.dumps(greeting).encode() + b"\r\n")
        received = ""
        while piece := peer.recv(4096):
            received += piece.decode()
            try:
                message, end = json.JSONDecoder().raw_decode(received)
            except ValueError:
                continue
            received = received[end:]
            answer: dict[str, object] = {}
            if message["execute"] == "cont":
                state = "running"
            elif message["execute"] == "query-status":
                answer = {"status": state, "running": state == "running"}
            number = {"id": message["id"]} if "id" in message else {}
            peer.sendall(json.dumps({"return": answer, **number}).encode() + b"\r\n")
        peer.close()


main(sys.argv[1:])
