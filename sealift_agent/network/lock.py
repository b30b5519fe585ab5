"""Nothing is sent inside the container's network namespace while CRIU reads its connections, or makes them again.

CRIU takes the two ends of a local connection one after the other. A packet between them in the meantime would change an
end that was read already, or reach an end that is not there yet: the kernel would reset the connection. CRIU's own lock
(`network-lock`) would be set up in the freeze. This one is set up before, and closed and opened by one message.

It refuses packets where they leave: a socket takes what is refused for not sent yet. What CRIU itself sends, for
connections that are closed in one direction, has a mark and passes (soccr/soccr.h).

Messages are those of linux/netfilter/nfnetlink.h and nf_tables.h.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import threading
from typing import TYPE_CHECKING

from ..wire import AgentError
from . import inside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLE, CHAIN = "sealift-lock", "leaving"
CRIU_MARK = 0xC114
SHUT, OPEN = 0, 1
"""A chain's policy: NF_DROP and NF_ACCEPT."""

NETLINK_NETFILTER, NFPROTO_INET = 12, 1
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFT, NEW_CHAIN, DELETE_TABLE = 10, 3, 2
REQUEST, ACK, NLMSG_ERROR = 0x1, 0x4, 2
TABLE_NAME, CHAIN_TABLE, CHAIN_NAME, CHAIN_POLICY = 1, 1, 3, 5
HEADER, FAMILY = struct.Struct("=IHHII"), struct.Struct("=BBH")
RECEIVE_BYTES = 1 << 13

ASKS, ANSWERS = "connected", "unlocked"
"""Pipes with names, in the directory of a restore: see `interposed.c`."""


class Lock:
    """States: open ⇄ shut (`shut`, `open`), in any order; over when it is closed."""

    def __init__(self, namespace: str, *, shut: bool = False) -> None:
        """Set it up in the network namespace at this path. AgentError if that fails."""
        policy = "drop" if shut else "accept"
        words = (
            f"{_removal()}add table inet {TABLE}\n"
            f"add chain inet {TABLE} {CHAIN} {{ type filter hook output priority raw; policy {policy}; }}\n"
            f"add rule inet {TABLE} {CHAIN} meta mark {CRIU_MARK:#x} accept\n"
        )
        try:
            self._socket = inside.run(namespace, lambda: _set_up(words))
        except OSError as failure:
            raise AgentError(f"the container's local connections can't be locked: {failure}") from failure
        self._number = 0

    def shut(self) -> None:
        """From now on nothing is sent there."""
        self._set(SHUT)

    def open(self) -> None:
        """Packets pass again."""
        self._set(OPEN)

    def _set(self, policy: int) -> None:
        chain = _text(CHAIN_TABLE, TABLE) + _text(CHAIN_NAME, CHAIN)
        self._ask(NEW_CHAIN, chain + _attribute(CHAIN_POLICY, struct.pack(">I", policy)))

    def close(self) -> None:
        """Remove it. Nothing is left of it, whatever state it is in."""
        if self._socket.fileno() >= 0:
            with contextlib.suppress(AgentError):  # the rules were flushed by somebody else
                self._ask(DELETE_TABLE, _text(TABLE_NAME, TABLE))
            self._socket.close()

    def _ask(self, what: int, attributes: bytes) -> None:
        """Have the kernel do it. AgentError if it does not."""
        self._number += 1
        batch = (
            _message(BATCH_BEGIN, REQUEST, self._number, FAMILY.pack(0, 0, socket.htons(NFT)))
            + _message(
                NFT << 8 | what, REQUEST | ACK, self._number, FAMILY.pack(NFPROTO_INET, 0, 0) + attributes
            )
            + _message(BATCH_END, REQUEST, self._number, FAMILY.pack(0, 0, socket.htons(NFT)))
        )
        try:
            self._socket.send(batch)
            _, kind, *_ = HEADER.unpack_from(answer := self._socket.recv(RECEIVE_BYTES))
        except OSError as failure:
            raise AgentError(f"the container's local connections can't be locked: {failure}") from failure
        (code,) = struct.unpack_from("=i", answer, HEADER.size)
        if kind != NLMSG_ERROR or code:
            raise AgentError(f"the container's local connections can't be locked: {os.strerror(-code)}")


def remove(namespace: str) -> None:
    """Remove what an agent that was killed has left in the network namespace at this path."""
    with contextlib.suppress(OSError):
        inside.run(namespace, lambda: _nft(_removal()))


def _removal() -> str:
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def _set_up(words: str) -> socket.socket:
    """A socket of netlink belongs for good to the namespace in which it was made."""
    _nft(words)
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    made.settimeout(10)
    return made


def _nft(words: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"nft: {' '.join(done.stderr.split())[:200]}")


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


class Unlocking:
    """Opens a lock when CRIU has made all connections again, just before they may send.

    CRIU waits for it. Without the library in CRIU nobody asks, and `open` comes when all processes run: what has been
    refused until then is sent when the sockets try again, up to three seconds later.
    """

    def __init__(self, lock: Lock, directory: Path, before: Callable[[], None] | None = None) -> None:
        """`directory` is that of the restore. `before` is called first: all processes are made, and none runs."""
        self._lock, self._is_open, self._before = lock, False, before
        self._failure: AgentError | None = None
        self._mutex = threading.Lock()
        for name in (ASKS, ANSWERS):
            os.mkfifo(directory / name, 0o600)
        # Open for both directions: opening waits for nobody, and a CRIU that waits sees the death of this process.
        self._asks, self._answers = (os.open(directory / name, os.O_RDWR) for name in (ASKS, ANSWERS))
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._wait, daemon=True, name="unlocking")
        self._thread.start()

    def _wait(self) -> None:
        ready, _, _ = select.select([self._asks, self._over], [], [])
        if self._asks in ready:
            if self._before is not None:
                self._before()
            with contextlib.suppress(AgentError):  # `open` raises it
                self.open()
            os.write(self._answers, b"\n")

    def open(self) -> None:
        """Open the lock unless it is open. AgentError if that fails, or has failed."""
        with self._mutex:
            if self._failure is None and not self._is_open:
                try:
                    self._lock.open()
                except AgentError as failure:
                    self._failure = failure
                self._is_open = True
            if self._failure is not None:
                raise self._failure

    def close(self) -> None:
        """Wait for CRIU no more, and remove the lock."""
        os.close(self._end)
        self._thread.join()
        for descriptor in (self._asks, self._answers, self._over):
            os.close(descriptor)
        self._lock.close()
