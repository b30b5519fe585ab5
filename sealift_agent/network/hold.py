"""Hold packets for a workload at the gateway while its container is frozen. Then they go to the host that has it.

Dropping them would be safe as well. But a client whose packet was dropped sends it again only after its retransmission
timer, and that timer doubles: after a second of freeze it may wait another second. A held packet has no such delay. The
kernel queues the packets for this process (NFQUEUE). If the process dies, they pass again (`--queue-bypass`).

Messages are those of linux/netfilter/nfnetlink_queue.h. Their numbers are big-endian.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import socket
import struct
import subprocess
import threading
from typing import TYPE_CHECKING

from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_NETFILTER = 12
QUEUE = 3 << 8  # NFNL_SUBSYS_QUEUE
PACKET, VERDICT, CONFIG, VERDICT_BATCH = QUEUE, QUEUE | 1, QUEUE | 2, QUEUE | 3
REQUEST, ACK = 0x1, 0x4
NLMSG_ERROR = 2
CFG_CMD, CFG_PARAMS, CFG_QUEUE_MAXLEN = 1, 2, 3
BIND = 1
COPY_PACKET = 2
PACKET_HDR, VERDICT_HDR, PAYLOAD = 1, 2, 10
ACCEPT = 1
HELD_MOST = 16384
"""Packets. The kernel drops any more, and clients send them again."""

HEADERS_BYTES = 76
"""As much of a packet as is looked at: the longest header of IPv4, and that of TCP up to its flags."""

RECEIVE_BYTES = 1 << 16

SYN, ACK_FLAG = 0x02, 0x10


class Held(enum.Enum):
    """Which packets are held."""

    NOTHING = enum.auto()
    NEW = enum.auto()
    """Those that begin a TCP connection."""
    ALL = enum.auto()


class Hold:
    """Holds packets for one address: those that begin a connection from `hold_new` on, every one from `hold` on.

    The kernel hands packets over as soon as this is made, so that neither needs a program. After `release` they pass
    at once, as before.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.number = int(ipaddress.IPv4Address(address)) & 0xFFFF
        self.held = 0
        self._last: int | None = None
        self._which = Held.NOTHING
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._configure(CFG_CMD, struct.pack(">BBH", BIND, 0, 0))
        self._configure(CFG_PARAMS, struct.pack(">IB", HEADERS_BYTES, COPY_PACKET))
        self._configure(CFG_QUEUE_MAXLEN, struct.pack(">I", HELD_MOST))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._rule("-I")
        self._ruled = True

    def hold_new(self) -> None:
        """Hold the packets that begin a connection from now on."""
        with self._lock:
            self._which = Held.NEW

    def hold(self) -> None:
        """Hold all packets from now on."""
        with self._lock:
            self._which = Held.ALL

    def release(self) -> int:
        """Send all held packets, in their order, by the present routes. Returns their number."""
        with self._lock:
            if self._which is not Held.NOTHING and self._last is not None:
                self._send(VERDICT_BATCH, VERDICT_HDR, struct.pack(">II", ACCEPT, self._last))
            self._which = Held.NOTHING
        return self.held

    def end(self) -> None:
        """Send them, and let the kernel hand over no more."""
        self.release()
        with self._lock:
            ruled, self._ruled = self._ruled, False
        if ruled:
            with contextlib.suppress(AgentError):
                self._rule("-D")

    def _rule(self, action: str) -> None:
        queue = ["-j", "NFQUEUE", "--queue-num", str(self.number), "--queue-bypass"]
        command = ["iptables", "-w", action, "FORWARD", "-d", self.address, *queue]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AgentError(f"packets can't be held: {done.stderr.strip()}", "final dump")

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except OSError as failure:
                if failure.errno == 105:  # ENOBUFS: the kernel has dropped packets, which is no error here
                    continue
                return
            for kind, body in _messages(data):
                if kind == PACKET:
                    self._packet(_attributes(body[4:]))

    def _packet(self, attributes: dict[int, bytes]) -> None:
        (identifier,) = struct.unpack_from(">I", attributes[PACKET_HDR])
        with self._lock:
            held = self._which is Held.ALL or (
                self._which is Held.NEW and begins(attributes.get(PAYLOAD, b""))
            )
            if held:
                self.held += 1
                self._last = identifier
            else:
                self._send(VERDICT, VERDICT_HDR, struct.pack(">II", ACCEPT, identifier))

    def _configure(self, attribute: int, value: bytes) -> None:
        self._send(CONFIG, attribute, value, flags=REQUEST | ACK)
        kind, body = next(_messages(self._socket.recv(RECEIVE_BYTES)))
        if kind == NLMSG_ERROR and (code := struct.unpack_from("=i", body)[0]) != 0:
            raise AgentError(f"packets can't be held: the kernel's packet queue answers with error {-code}")

    def _send(self, kind: int, attribute: int, value: bytes, flags: int = REQUEST) -> None:
        body = struct.pack(">BBH", 0, 0, self.number)
        body += struct.pack("=HH", 4 + len(value), attribute) + value + b"\0" * (-len(value) % 4)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body)


def begins(packet: bytes) -> bool:
    """Whether this packet of IPv4 begins a TCP connection, or its beginning does."""
    flags_at = (packet[0] & 0xF) * 4 + 13 if packet else 0
    if len(packet) <= flags_at or packet[9] != socket.IPPROTO_TCP:
        return False
    (fragment,) = struct.unpack_from(">H", packet, 6)
    return not fragment & 0x1FFF and packet[flags_at] & (SYN | ACK_FLAG) == SYN


def sweep(address: str) -> None:
    """Remove the rules for an address that a killed agent has left. No process holds packets for them."""
    shown = subprocess.run(
        ["iptables-save", "-t", "filter"], capture_output=True, text=True, check=False
    ).stdout
    for line in shown.splitlines():
        words = line.split()
        if words[:2] == ["-A", "FORWARD"] and f"{address}/32" in words and "NFQUEUE" in words:
            subprocess.run(["iptables", "-w", "-D", *words[1:]], check=False)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, position)
        yield kind, data[position + 16 : position + length]
        position += max(16, length + 3 & ~3)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, position = {}, 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        found[kind & 0x7FFF] = data[position + 4 : position + length]
        position += max(4, length + 3 & ~3)
    return found
