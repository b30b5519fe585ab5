"""Datagrams that wait in a socket's receive queue, which CRIU 4.2 leaves behind: copied, and sent again.

At the source each is looked at (MSG_PEEK, and SO_PEEK_OFF to get to the next one: socket(7)); the queue stays as it is.
At the destination a raw socket in the container's own namespace sends it to the restored socket over the loopback
interface, with the address of who sent it first. So the program reads the same data from the same sender.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

from ..wire import AgentError
from . import inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SO_PEEK_OFF, SO_MEMINFO, SO_RCVBUFFORCE, SO_BUF_LOCK = 42, 55, 33, 72
IP_TTL, IP_TOS, IP_PKTINFO = 2, 1, 8
IPV6_PKTINFO, IPV6_HOPLIMIT, IPV6_TCLASS, IPV6_HDRINCL = 50, 52, 67, 36
UDP_GRO = 104
HOP_WORDS = ((socket.IPPROTO_IP, IP_TTL), (socket.IPPROTO_IPV6, IPV6_HOPLIMIT))
SERVICE_WORDS = ((socket.IPPROTO_IP, IP_TOS), (socket.IPPROTO_IPV6, IPV6_TCLASS))
GATHERED = ((socket.IPPROTO_UDP, UDP_GRO),)
"""linux/in.h, in6.h, udp.h, asm-generic/socket.h."""

MEMORY, DROPPED, COUNTERS = 0, 8, 9
"""Of SO_MEMINFO (linux/sock_diag.h): bytes in the receive queue, and how many were not taken; how many numbers."""

ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound to
MOST_BYTES, ANCILLARY_BYTES = 65535, 512
IPV4_HEAD, IPV6_HEAD, UDP_HEAD = 20, 40, 8
HOPS = 64

Address = tuple[str, int]


class Datagram(NamedTuple):
    """One datagram: who sent it, to which address of the container, time to live, type of service, and its data."""

    sender: Address
    receiver: Address
    hops: int
    service: int
    data: bytes


def waiting(found: socket.socket, address: str) -> list[Datagram]:
    """The datagrams that wait in a socket of UDP, the first one first. It stays as it is.

    `address` is the container's own, for a socket that is bound to none. AgentError for one that can't be sent again.
    """
    if not is_waiting(found):
        return []
    before = found.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF)
    here, _ = ends(found)
    datagrams: list[Datagram] = []
    try:
        found.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        while True:
            try:
                data, told, _, sender = found.recvmsg(
                    MOST_BYTES, ANCILLARY_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                break
            datagrams += _received(data, told, sender, here, address)
    finally:
        found.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, before)
    if datagrams and found.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).strip(b"\0"):
        raise AgentError(_cannot(here, "the socket is bound to an interface"), "final dump")
    for one in datagrams:
        if (why := obstacle(one)) is not None:
            raise AgentError(_cannot(here, why), "final dump")
    return datagrams


def is_waiting(found: socket.socket) -> bool:
    """Whether anything is in a socket's receive queue."""
    return _memory(found)[MEMORY] > 0


def ends(found: socket.socket) -> tuple[Address, Address | None]:
    """The address of a socket of UDP, and its peer's if it is connected; those of IPv4 as such."""
    own, peer = _end(found.getsockname()), None
    with contextlib.suppress(OSError):
        peer = _end(found.getpeername())
    return own, peer


def _end(name: tuple[str, int]) -> Address:
    """A socket's name, which has more parts with IPv6."""
    return _plain(name[0]), name[1]


def _received(
    data: bytes, told: Sequence[tuple[int, int, bytes]], sender: tuple[str, int], here: Address, address: str
) -> Iterator[Datagram]:
    """One datagram, or several that the kernel has put together (UDP_GRO)."""
    origin = _plain(sender[0])
    words = {(level, kind): value for level, kind, value in told}  # those that the program has asked for
    size = _first(words, GATHERED, len(data)) or len(data)
    pieces = [data[at : at + size] for at in range(0, len(data), size)] if data else [data]
    for piece in pieces:
        yield Datagram(
            (origin, int(sender[1])),
            (_target(words, origin, here, address), here[1]),
            _first(words, HOP_WORDS, HOPS),
            _first(words, SERVICE_WORDS, 0),
            piece,
        )


def _first(words: dict[tuple[int, int], bytes], names: Sequence[tuple[int, int]], otherwise: int) -> int:
    """The number that one of these words has, in the order of this host."""
    return next((int.from_bytes(words[name], sys.byteorder) for name in names if name in words), otherwise)


def _target(words: dict[tuple[int, int], bytes], origin: str, here: Address, address: str) -> str:
    """The address that it was sent to, as far as it is known."""
    if (told := words.get((socket.IPPROTO_IP, IP_PKTINFO))) is not None:
        return socket.inet_ntoa(told[8:12])
    if (told := words.get((socket.IPPROTO_IPV6, IPV6_PKTINFO))) is not None:
        return _plain(socket.inet_ntop(socket.AF_INET6, told[:16]))
    if here[0] not in ANY:
        return here[0]
    if ipaddress.ip_address(origin).is_loopback:
        return "::1" if ":" in origin else "127.0.0.1"
    return origin if ":" in origin else address


def _plain(address: str) -> str:
    """An address without the name of an interface; one of IPv4 as such."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def obstacle(one: Datagram) -> str | None:
    """Why a datagram can't be sent again; None if it can."""
    sender, receiver = (ipaddress.ip_address(address) for address, _ in (one.sender, one.receiver))
    if receiver.is_multicast or str(receiver) == "255.255.255.255":
        return f"it was sent to {receiver}"
    if sender.is_link_local and sender.version == 6:
        return f"it came from {sender}, which only its own link knows"
    if sender.is_unspecified or sender.version != receiver.version:
        return f"it came from {sender}"
    return None


def _cannot(here: Address, why: str) -> str:
    return f"a datagram waits unread at UDP port {here[1]} and can't be sent again at the destination: {why}; try again"


def _memory(found: socket.socket) -> tuple[int, ...]:
    return struct.unpack(
        f"{COUNTERS}I",
        found.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * COUNTERS).ljust(4 * COUNTERS, b"\0"),
    )


def send_again(namespace: int, found: socket.socket, datagrams: Sequence[Datagram]) -> None:
    """Have a restored socket, in the network namespace of that process, receive these. AgentError if it does not."""
    port = found.getsockname()[1]
    room = found.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    lock: int | None = None
    with contextlib.suppress(OSError):  # the kernel is older than this option
        lock = found.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK)
    dropped = _memory(found)[DROPPED]
    # Its queue was as full at the source: the kernel may count more for the same data here.
    found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, room + sum(len(one.data) + 2048 for one in datagrams))
    try:
        inside.run(f"/proc/{namespace}/ns/net", lambda: _send(datagrams))
    except OSError as refused:
        why = f"the datagrams that waited at UDP port {port} can't be sent again: {refused.strerror}"
        raise AgentError(f"{why}; try again once they are read", "restore") from refused
    finally:
        found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, room // 2)
        if lock is not None:
            found.setsockopt(socket.SOL_SOCKET, SO_BUF_LOCK, lock)
    if _memory(found)[DROPPED] != dropped:
        raise AgentError(
            f"the restored socket at UDP port {port} has not taken all datagrams that waited; try again",
            "restore",
        )


def _send(datagrams: Sequence[Datagram]) -> None:
    with contextlib.ExitStack() as stack:
        raw: dict[int, socket.socket] = {}
        for one in datagrams:
            version = 6 if ":" in one.receiver[0] else 4
            if version not in raw:
                raw[version] = stack.enter_context(_raw_socket(version))
            packet = (_packet6 if version == 6 else _packet4)(one)
            sent = raw[version].sendto(packet, (one.receiver[0], 0))
            if sent != len(packet):
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))


def _raw_socket(version: int) -> socket.socket:
    """A raw socket that takes packets with their heads."""
    if version == 4:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    made.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
    return made


def _packet4(one: Datagram) -> bytes:
    """RFC 791; the kernel fills in the checksum of the head. RFC 768: without one of the data."""
    size = UDP_HEAD + len(one.data)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        one.service,
        IPV4_HEAD + size,
        0,
        0,
        one.hops,
        socket.IPPROTO_UDP,
        0,
        socket.inet_aton(one.sender[0]),
        socket.inet_aton(one.receiver[0]),
    )
    return head + struct.pack("!HHHH", one.sender[1], one.receiver[1], size, 0) + one.data


def _packet6(one: Datagram) -> bytes:
    """RFC 8200. The checksum is needed there."""
    size = UDP_HEAD + len(one.data)
    ends = socket.inet_pton(socket.AF_INET6, one.sender[0]) + socket.inet_pton(
        socket.AF_INET6, one.receiver[0]
    )
    head = struct.pack("!IHBB", 6 << 28 | one.service << 20, size, socket.IPPROTO_UDP, one.hops) + ends
    ports = struct.pack("!HHH", one.sender[1], one.receiver[1], size)
    total = ends + struct.pack("!II", size, socket.IPPROTO_UDP) + ports + b"\0\0" + one.data
    return head + ports + struct.pack("!H", _checksum(total) or 0xFFFF) + one.data


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
