"""What a link carries: zeros for a moment, from one host's agent to the other's, counted where they arrive."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from typing import Any

from .wire import AgentError, Link, listen

DURATION_S = 0.4
RAMP_S = 0.1
"""What arrives first is not counted: the sender is still finding the link's rate."""

PATIENCE_S = 10
BLOCK = bytes(1 << 16)
BUFFER_BYTES = 1 << 19


def receive(address: str) -> dict[str, Any]:
    """Wait for one measurement at this host's tunnel address. Returns the door: port and token."""
    listener = listen(address)
    token = secrets.token_hex(16)
    threading.Thread(target=_count, args=(listener, token), daemon=True, name="link").start()
    return {"address": address, "port": listener.getsockname()[1], "token": token}


def _count(listener: socket.socket, token: str) -> None:
    with contextlib.suppress(OSError, AgentError), contextlib.closing(listener):
        link = Link.accept(listener, token, timeout=PATIENCE_S)
        link.socket.settimeout(PATIENCE_S)
        counted, first, last = 0, time.monotonic(), 0.0
        while data := link.socket.recv(1 << 20):
            last = time.monotonic()
            if last - first > RAMP_S:
                counted += len(data)
        took = last - first - RAMP_S
        link.send(bytes_s=counted / took if took > 0 else 0)
        link.close()


def send(address: str, port: int, token: str) -> float:
    """Fill the link for a moment. Returns what arrived, in bytes a second; AgentError if nothing could."""
    try:
        link = Link.connect(address, port, token, timeout=PATIENCE_S)
    except OSError as unreachable:
        raise AgentError(f"the other host can't be reached at {address}: {unreachable}") from unreachable
    with contextlib.closing(link):
        link.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES
        )  # a slow link has to empty it
        end = time.monotonic() + DURATION_S
        while time.monotonic() < end:
            link.socket.sendall(BLOCK)
        link.socket.shutdown(socket.SHUT_WR)
        return float(link.receive(PATIENCE_S)["bytes_s"])
