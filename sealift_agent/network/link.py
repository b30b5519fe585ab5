"""What a link carries: zeros for a moment, from one host's agent to the other's, counted where they arrive."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from .. import messages
from ..admission import Admission
from ..protocol import Endpoint, LinkSample
from ..wire import AgentError, Link

DURATION_S, MOST_BYTES = 0.4, 24 << 20
"""After whichever is reached first the link is left alone: others use it, and somebody pays for it."""

RAMP_S, RAMP_BYTES = 0.1, 4 << 20
"""What arrives first is not counted: the sender is still finding the link's rate."""

PATIENCE_S = 10
BLOCK = bytes(1 << 16)
BUFFER_BYTES = 1 << 19

LONG_S = 0.02
"""The round trip from which on several connections are tried: the usual window of 4 MB carries 200 MB/s at most."""

STREAMS, WORTH_IT = 4, 1.25
"""How many are tried, and what they must carry of what one does."""

RTT_AT = 68


def receive(address: str) -> Endpoint:
    """Wait for one measurement at this host's tunnel address. Returns where."""
    token = secrets.token_hex(16)
    admission = Admission(address, token, slots=None)
    threading.Thread(target=_accept, args=(admission,), daemon=True, name="link").start()
    return Endpoint(address, admission.port, token)


def _accept(admission: Admission) -> None:
    """Whoever knows the token is counted for. Ends when nobody has come for `PATIENCE_S`."""
    with contextlib.suppress(OSError), admission:
        while True:
            link = Link(admission.take(PATIENCE_S))
            threading.Thread(target=_count, args=(link,), daemon=True, name="link").start()


def _count(link: Link) -> None:
    with contextlib.suppress(OSError, AgentError), contextlib.closing(link):
        link.socket.settimeout(PATIENCE_S)
        arrived = counted = 0
        first = time.monotonic()
        begun: float | None = None
        last = first
        for data in link.rest():
            last = time.monotonic()
            arrived += len(data)
            if begun is not None:
                counted += len(data)
            elif last - first > RAMP_S or arrived > RAMP_BYTES:
                begun = last
        took = last - begun if begun is not None else 0
        link.send(bytes_s=counted / took if took > 0 else 0)


def send(address: str, port: int, token: str) -> LinkSample:
    """Fill the link for a moment. Returns what arrived.

    Over several connections only where the way is long and they have carried more. AgentError if the other host can't
    be reached.
    """
    rate, sent, round_trip_s = _fill(address, port, token, 1)
    if round_trip_s < LONG_S:
        return LinkSample(rate, sent, 1)
    together, more, _ = _fill(address, port, token, STREAMS)
    if together >= WORTH_IT * rate:
        return LinkSample(together, sent + more, STREAMS)
    return LinkSample(rate, sent + more, 1)


def _fill(address: str, port: int, token: str, streams: int) -> tuple[float, int, float]:
    """By so many connections at once: bytes a second that arrived, bytes sent, the round trip in seconds."""
    with contextlib.ExitStack() as stack:
        try:
            links = [
                stack.enter_context(
                    contextlib.closing(Link.connect(address, port, token, timeout=PATIENCE_S))
                )
                for _ in range(streams)
            ]
        except OSError as unreachable:
            raise AgentError(f"the other host can't be reached at {address}: {unreachable}") from unreachable
        round_trip_s = _round_trip_s(links[0].socket)
        if round_trip_s < LONG_S:
            for link in links:  # a slow link has to empty it; a long one needs it
                link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        end = time.monotonic() + DURATION_S
        with ThreadPoolExecutor(streams) as pool:
            sent = sum(pool.map(lambda link: _send(link, end, MOST_BYTES // streams), links))
        return sum(messages.rate(link.receive(PATIENCE_S)) for link in links), sent, round_trip_s


def _send(link: Link, end: float, most: int) -> int:
    sent = 0
    while sent < most and time.monotonic() < end:
        link.socket.sendall(BLOCK)
        sent += len(BLOCK)
    link.socket.shutdown(socket.SHUT_WR)
    return sent


def _round_trip_s(connection: socket.socket) -> float:
    """The kernel's own estimate (linux/tcp.h, struct tcp_info, tcpi_rtt)."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RTT_AT + 4)
    return int.from_bytes(info[RTT_AT:], "little") / 1e6
