"""Options that a program has set on its sockets and that CRIU 4.2 does not restore.

At the source a socket's options are compared with those of a new socket of its kind in the same namespace: what differs
is sent. At the destination what differs from it on the restored socket is set.

Numbers are those of linux/socket.h, in.h, in6.h, tcp.h, udp.h and netlink.h. Options that a kernel does not know, or
that a kind of socket does not have, are left out by asking the new socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from typing import NamedTuple, Union

from ..wire import AgentError
from . import inside

Value = Union[int, bytes]

NUMBER, BYTES, INTERFACE, INTERFACE_SWAPPED = range(4)
"""An option's value: a number, some bytes, or the number of an interface, in this host's or the network's order."""

SOCKET, IP, IPV6, TCP, UDP, UDPLITE, NETLINK = 1, 0, 41, 6, 17, 136, 270
CLOSED, LISTENING = 7, 10
"""TCP's states (linux/tcp_states.h)."""

INTERNET = (socket.AF_INET, socket.AF_INET6)
SO_PROTOCOL, SO_DOMAIN, SO_PEERNAME, TCP_INFO = 38, 39, 28, 11
SIOCGIFNAME, SIOCGIFINDEX, IFREQ_BYTES = 0x8910, 0x8933, 40


class Option(NamedTuple):
    """One option. `late`: it makes no difference yet while nobody reaches the container."""

    name: str
    level: int
    number: int
    kind: int = NUMBER
    size: int = 4
    late: bool = False


def _numbers(level: int, words: str) -> list[Option]:
    pairs = (word.split("=") for word in words.split())
    return [Option(name, level, int(number)) for name, number in pairs]


OPTIONS = (
    Option("SO_REUSEPORT", SOCKET, 15, late=True),
    *_numbers(
        SOCKET,
        "SO_DEBUG=1 SO_DONTROUTE=5 SO_BROADCAST=6 SO_KEEPALIVE=9 SO_OOBINLINE=10 SO_NO_CHECK=11"
        " SO_PRIORITY=12 SO_PASSCRED=16 SO_RCVLOWAT=18 SO_TIMESTAMP_OLD=29 SO_PASSSEC=34 SO_TIMESTAMPNS_OLD=35"
        " SO_MARK=36 SO_TIMESTAMPING_OLD=37 SO_RXQ_OVFL=40 SO_WIFI_STATUS=41 SO_PEEK_OFF=42 SO_NOFCS=43"
        " SO_SELECT_ERR_QUEUE=45 SO_BUSY_POLL=46 SO_ZEROCOPY=60 SO_TIMESTAMP_NEW=63 SO_TIMESTAMPNS_NEW=64"
        " SO_TIMESTAMPING_NEW=65 SO_PREFER_BUSY_POLL=69 SO_BUSY_POLL_BUDGET=70 SO_RESERVE_MEM=73 SO_RCVMARK=75"
        " SO_PASSPIDFD=76 SO_RCVPRIORITY=82 SO_PASSRIGHTS=83",
    ),
    Option("SO_LINGER", SOCKET, 13, BYTES, 8),
    Option("SO_MAX_PACING_RATE", SOCKET, 47, BYTES, 8),
    Option("SO_TXTIME", SOCKET, 61, BYTES, 8),
    *_numbers(
        IP,
        "IP_TOS=1 IP_TTL=2 IP_RECVOPTS=6 IP_RETOPTS=7 IP_PKTINFO=8 IP_MTU_DISCOVER=10 IP_RECVERR=11 IP_RECVTTL=12"
        " IP_RECVTOS=13 IP_FREEBIND=15 IP_PASSSEC=18 IP_TRANSPARENT=19 IP_RECVORIGDSTADDR=20 IP_MINTTL=21"
        " IP_NODEFRAG=22 IP_CHECKSUM=23 IP_BIND_ADDRESS_NO_PORT=24 IP_RECVFRAGSIZE=25 IP_RECVERR_RFC4884=26"
        " IP_MULTICAST_TTL=33 IP_MULTICAST_LOOP=34 IP_MULTICAST_ALL=49 IP_LOCAL_PORT_RANGE=51",
    ),
    Option("IP_OPTIONS", IP, 4, BYTES, 40),
    Option("IP_MULTICAST_IF", IP, 32, BYTES, 4),
    Option("IP_UNICAST_IF", IP, 50, INTERFACE_SWAPPED),
    *_numbers(
        IPV6,
        "IPV6_2292PKTINFO=2 IPV6_2292HOPOPTS=3 IPV6_2292DSTOPTS=4 IPV6_2292RTHDR=5 IPV6_2292HOPLIMIT=8"
        " IPV6_FLOWINFO=11 IPV6_UNICAST_HOPS=16 IPV6_MULTICAST_HOPS=18 IPV6_MULTICAST_LOOP=19 IPV6_MTU_DISCOVER=23"
        " IPV6_RECVERR=25 IPV6_V6ONLY=26 IPV6_MULTICAST_ALL=29 IPV6_RECVERR_RFC4884=31 IPV6_FLOWINFO_SEND=33"
        " IPV6_RECVPKTINFO=49 IPV6_RECVHOPLIMIT=51 IPV6_RECVHOPOPTS=53 IPV6_RECVRTHDR=56 IPV6_RECVDSTOPTS=58"
        " IPV6_RECVPATHMTU=60 IPV6_DONTFRAG=62 IPV6_RECVTCLASS=66 IPV6_TCLASS=67 IPV6_AUTOFLOWLABEL=70"
        " IPV6_ADDR_PREFERENCES=72 IPV6_MINHOPCOUNT=73 IPV6_RECVORIGDSTADDR=74 IPV6_TRANSPARENT=75"
        " IPV6_RECVFRAGSIZE=77 IPV6_FREEBIND=78",
    ),
    Option("IPV6_MULTICAST_IF", IPV6, 17, INTERFACE),
    Option("IPV6_UNICAST_IF", IPV6, 76, INTERFACE_SWAPPED),
    *_numbers(
        TCP,
        "TCP_NODELAY=1 TCP_MAXSEG=2 TCP_KEEPIDLE=4 TCP_KEEPINTVL=5 TCP_KEEPCNT=6 TCP_SYNCNT=7 TCP_LINGER2=8"
        " TCP_DEFER_ACCEPT=9 TCP_THIN_LINEAR_TIMEOUTS=16 TCP_USER_TIMEOUT=18 TCP_FASTOPEN=23 TCP_NOTSENT_LOWAT=25"
        " TCP_SAVE_SYN=27 TCP_FASTOPEN_CONNECT=30 TCP_FASTOPEN_NO_COOKIE=34 TCP_INQ=36 TCP_TX_DELAY=37"
        " TCP_RTO_MAX_MS=44 TCP_RTO_MIN_US=45 TCP_DELACK_MAX_US=46",
    ),
    Option("TCP_WINDOW_CLAMP", TCP, 10, late=True),
    Option("TCP_CONGESTION", TCP, 13, BYTES, 16),
    Option("TCP_FASTOPEN_KEY", TCP, 33, BYTES, 32),
    *_numbers(UDP, "UDP_ENCAP=100 UDP_NO_CHECK6_TX=101 UDP_NO_CHECK6_RX=102 UDP_SEGMENT=103 UDP_GRO=104"),
    *_numbers(UDPLITE, "UDPLITE_SEND_CSCOV=10 UDPLITE_RECV_CSCOV=11"),
    *_numbers(
        NETLINK,
        "NETLINK_PKTINFO=3 NETLINK_BROADCAST_ERROR=4 NETLINK_NO_ENOBUFS=5 NETLINK_LISTEN_ALL_NSID=8"
        " NETLINK_CAP_ACK=10 NETLINK_EXT_ACK=11 NETLINK_GET_STRICT_CHK=12",
    ),
)
BY_NAME = {option.name: option for option in OPTIONS}

FOLLOWS = {"TCP_WINDOW_CLAMP", "SO_REUSEPORT"}
"""Sent of each connection, whatever it is: the kernel changes the one itself, and CRIU sets the other and leaves it."""

UNTRUE = {"SO_PEEK_OFF"}
"""What CRIU changes for a moment of sockets whose queue it dumps: only read where it dumps none. SO_REUSEADDR, which it
changes too (TCP_REPAIR), it restores itself."""

Kind = tuple[int, int, int]
"""Family, type and protocol."""


def kind(found: socket.socket) -> Kind:
    """What a socket is, by itself: Python's own words for it cost more."""
    return (
        found.getsockopt(SOCKET, SO_DOMAIN),
        found.getsockopt(SOCKET, socket.SO_TYPE),
        found.getsockopt(SOCKET, SO_PROTOCOL),
    )


def state(found: socket.socket) -> int:
    """TCP's state of a socket of TCP."""
    return found.getsockopt(TCP, TCP_INFO, 1)[0]


def defaults(namespace: int, which: Kind) -> dict[str, Value]:
    """What a new socket of this kind has in the network namespace of this process. Nothing if none can be made."""

    def ask() -> dict[str, Value]:
        found: dict[str, Value] = {}
        with contextlib.suppress(OSError), socket.socket(*which) as new:
            for option in OPTIONS:
                if _may_have(which, option):
                    with contextlib.suppress(OSError):
                        found[option.name] = _read(new, option)
        return found

    return inside.run(f"/proc/{namespace}/ns/net", ask)


def _may_have(which: Kind, option: Option) -> bool:
    """Whether sockets of this kind are asked: elsewhere a level has another meaning, or the answer is none of theirs.

    A connection that was accepted has the first packet's time to live as that of its multicast, which it can't set.
    """
    family, kind_of, protocol = which
    if (option.name in UNTRUE and protocol != UDP) or (
        kind_of == socket.SOCK_STREAM and "_MULTICAST_" in option.name
    ):
        return False
    if option.level in {TCP, UDP, UDPLITE}:
        if kind_of == socket.SOCK_RAW:  # of these protocols' packets, but none of their sockets
            return False
        return family in INTERNET and (option.level == protocol or (option.level, protocol) == (UDP, UDPLITE))
    return {
        SOCKET: True,
        IP: family in INTERNET,
        IPV6: family == socket.AF_INET6,
        NETLINK: family == socket.AF_NETLINK,
    }[option.level]


def read(found: socket.socket, which: Kind, usual: dict[str, Value]) -> dict[str, Value]:
    """What is to be there again of a socket's options, by name; an interface by its own name."""
    connected = which[1:] == (socket.SOCK_STREAM, TCP) and state(found) not in {CLOSED, LISTENING}
    kept: dict[str, Value] = {}
    ask = found.getsockopt
    for name, new in usual.items():
        option = BY_NAME[name]
        try:  # without a function's call: there are a hundred of them for each socket
            value: Value = (
                ask(option.level, option.number)
                if option.kind != BYTES
                else ask(option.level, option.number, option.size)
            )
            if value != new or (connected and name in FOLLOWS):
                kept[name] = _named(found, option, value)
        except OSError:  # not in this state of the socket
            pass
    if "TCP_MAXSEG" in kept and (connected or _was_connected(found)):
        del kept["TCP_MAXSEG"]  # it is what the connection came to, and can't be set so
    return kept


def _was_connected(found: socket.socket) -> bool:
    """Whether a socket had a connection, which may have ended."""
    with contextlib.suppress(OSError):
        return bool(found.getsockopt(SOCKET, SO_PEERNAME, 2))
    return False


def set_differing(found: socket.socket, wanted: dict[str, Value], *, late: bool) -> int:
    """Set what differs from it on a restored socket. Returns how many options that were.

    `late`: only those that are to be set late, else only the others. AgentError where the kernel refuses one.
    """
    count = 0
    for name, value in wanted.items():
        option = BY_NAME[name]
        if option.late is not late:
            continue
        try:
            here = _here(found, option, value)
            if _read(found, option) == here:
                continue
            found.setsockopt(option.level, option.number, here)
        except OSError as refused:
            shown = value if isinstance(value, int) else value.decode(errors="replace").rstrip("\0")
            raise AgentError(
                f"the option {name} of a socket can't be set to {shown} at the destination ({refused.strerror}): "
                "have its kernel support that, or the program do without",
                "restore",
            ) from refused
        count += 1
    return count


def _read(found: socket.socket, option: Option) -> Value:
    if option.kind == BYTES:
        return found.getsockopt(option.level, option.number, option.size)
    return found.getsockopt(option.level, option.number)


def _swapped(number: int) -> int:
    return socket.ntohl(number & 0xFFFFFFFF)


def _named(found: socket.socket, option: Option, value: Value) -> Value:
    """The name of an interface instead of its number, which is another one elsewhere."""
    if option.kind not in {INTERFACE, INTERFACE_SWAPPED} or not isinstance(value, int) or value == 0:
        return value
    number = _swapped(value) if option.kind == INTERFACE_SWAPPED else value
    asked = struct.pack("16si", b"", number).ljust(IFREQ_BYTES, b"\0")
    return fcntl.ioctl(found, SIOCGIFNAME, asked)[:16].rstrip(b"\0")


def _here(found: socket.socket, option: Option, value: Value) -> Value:
    if option.kind not in {INTERFACE, INTERFACE_SWAPPED} or isinstance(value, int):
        return value
    answer = fcntl.ioctl(found, SIOCGIFINDEX, value[:15].ljust(IFREQ_BYTES, b"\0"))
    number: int = struct.unpack_from("i", answer, 16)[0]
    return _signed(_swapped(number)) if option.kind == INTERFACE_SWAPPED else number


def _signed(number: int) -> int:
    """As getsockopt(2) answers through Python."""
    return number - (1 << 32) if number >= 1 << 31 else number
