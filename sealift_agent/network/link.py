"""The rate of a link: one host's agent sends zeros to the other's for a moment, and the receiver counts them."""

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
"""Bounds of a measurement: seconds, and bytes. The first one that is reached ends it, since others use the link and
may pay for it."""

RAMP_S, RAMP_BYTES = 0.1, 4 << 20
"""Seconds or bytes at the beginning that are not counted, since the sender still adapts its rate."""

PATIENCE_S = 10
BLOCK = bytes(1 << 16)
BUFFER_BYTES = 1 << 19

LONG_S = 0.02
"""The round trip from which several connections are tried: the usual window of 4 MB allows 200 MB/s at most."""

STREAMS, WORTH_IT = 4, 1.25
"""The number of connections that are tried, and the factor by which they must be faster than one."""

RTT_AT = 68


def receive(address: str) -> Endpoint:
    """Wait for one measurement at this host's tunnel address. Returns the endpoint."""
    token = secrets.token_hex(16)
    admission = Admission(address, token, slots=None)
    threading.Thread(target=_accept, args=(admission,), daemon=True, name="link").start()
    return Endpoint(address, admission.port, token)


def _accept(admission: Admission) -> None:
    """Count for each sender that knows the token. Ends when none has come for `PATIENCE_S`."""
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
    """Send as fast as possible for a moment. Returns what arrived.

    Several connections are used only if the round trip is long and they were faster. AgentError if the other host can't
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
    """Measure with so many connections at once: bytes/s that arrived, bytes sent, the round trip in seconds."""
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
