"""What a link carries: zeros for a moment, from one host's agent to the other's, counted where they arrive."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from typing import Any

from .wire import AgentError, Link, listen

DURATION_S, MOST_BYTES = 0.4, 24 << 20
"""After whichever is reached first the link is left alone: others use it, and somebody pays for it."""

RAMP_S, RAMP_BYTES = 0.1, 4 << 20
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
        arrived = counted = 0
        first = time.monotonic()
        begun: float | None = None
        last = first
        while data := link.socket.recv(1 << 20):
            last = time.monotonic()
            arrived += len(data)
            if begun is not None:
                counted += len(data)
            elif last - first > RAMP_S or arrived > RAMP_BYTES:
                begun = last
        took = last - begun if begun is not None else 0
        link.send(bytes_s=counted / took if took > 0 else 0)
        link.close()


def send(address: str, port: int, token: str) -> tuple[float, int]:
    """Fill the link for a moment. Returns what arrived, in bytes a second, and what was sent for it, in bytes.

    AgentError if the other host can't be reached.
    """
    try:
        link = Link.connect(address, port, token, timeout=PATIENCE_S)
    except OSError as unreachable:
        raise AgentError(f"the other host can't be reached at {address}: {unreachable}") from unreachable
    with contextlib.closing(link):
        link.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES
        )  # a slow link has to empty it
        end = time.monotonic() + DURATION_S
        sent = 0
        while sent < MOST_BYTES and time.monotonic() < end:
            link.socket.sendall(BLOCK)
            sent += len(BLOCK)
        link.socket.shutdown(socket.SHUT_WR)
        return float(link.receive(PATIENCE_S)["bytes_s"]), sent
