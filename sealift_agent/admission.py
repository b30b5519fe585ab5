"""Who connects to a listener of an agent proves first that it knows the token; so does the listener.

The listener greets with a nonce. Who connects answers with a nonce of its own, the number of its slot, and an
HMAC-SHA256 over all of that and what the connection is for; the listener answers with another HMAC over the same. The
token itself never crosses, and what crosses is of no use for another connection. From then on the connection belongs to
whoever uses it: nothing is added to its bytes.

Proofs of all connections are awaited at once, in one thread: one that is silent or says something else holds nobody up.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import queue
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

VERSION = b"sealift1"
"""The first bytes of a listener's greeting."""

NONCE_BYTES = 32
PROOF_BYTES = hashlib.sha256().digest_size
GREETING_BYTES = len(VERSION) + NONCE_BYTES
ANSWER_BYTES = NONCE_BYTES + 1 + PROOF_BYTES

PROOF_S = 5
"""How long a connection may take to prove that it knows the token."""

MOST_UNPROVED = 64
"""So many connections may be without their proof at a time; for one more the oldest is closed."""

TRIES, TRY_AGAIN_S = 5, 0.1
"""A connection that is closed in its handshake, as the oldest of too many is, is tried again."""

LINK = "link"
"""What a connection is for that carries messages."""


NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Why accept(2) may fail for a while."""


class NotProved(ConnectionError):
    """What listens there does not know the token, or has closed the connection before it has proved that it does."""


def connect(
    address: str, port: int, token: str, purpose: str = LINK, slot: int = 0, timeout: float = 20
) -> socket.socket:
    """A connection to an `Admission` with this token and purpose. OSError if there is none within the timeout.

    Patient, since a tunnel whose end has just got another key may lose packets until its next handshake.
    """
    until = time.monotonic() + timeout
    for left in reversed(range(TRIES)):
        connection = socket.create_connection((address, port), timeout=max(0.1, until - time.monotonic()))
        try:
            _prove(connection, token, purpose, slot, until)
        except BaseException as failed:
            connection.close()
            crowded_out = isinstance(failed, ConnectionError) and not isinstance(failed, _Stranger)
            if not crowded_out or not left or time.monotonic() + TRY_AGAIN_S > until:
                raise
            time.sleep(TRY_AGAIN_S)
        else:
            connection.settimeout(None)
            return connection
    raise AssertionError  # the last try returns or raises


class _Stranger(NotProved):
    """It has said something that who knows the token does not say."""


def _prove(connection: socket.socket, token: str, purpose: str, slot: int, until: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    greeting = _exactly(connection, GREETING_BYTES, until)
    if not greeting.startswith(VERSION):
        raise _Stranger("what listens there is no agent of this version")
    mine = os.urandom(NONCE_BYTES)
    connection.sendall(mine + bytes([slot]) + _proof(token, b"connects", purpose, slot, greeting, mine))
    theirs = _exactly(connection, PROOF_BYTES, until)
    if not hmac.compare_digest(theirs, _proof(token, b"listens", purpose, slot, greeting, mine)):
        raise _Stranger("what listens there does not know the token")


def _exactly(connection: socket.socket, size: int, until: float) -> bytes:
    data = b""
    while len(data) < size:
        connection.settimeout(max(0.001, until - time.monotonic()))
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise NotProved("it was closed before the token was proved: the token is wrong, or it was busy")
        data += chunk
    return data


def _proof(token: str, who: bytes, purpose: str, slot: int, greeting: bytes, nonce: bytes) -> bytes:
    """What only who knows the token can say. All parts have a fixed length but the last."""
    said = who.ljust(8) + greeting + nonce + bytes([slot]) + purpose.encode()
    return hmac.digest(token.encode(), said, "sha256")


@dataclass(eq=False)
class _Unproved:
    """A connection that has not proved anything yet."""

    socket: socket.socket
    greeting: bytes = field(default_factory=lambda: VERSION + os.urandom(NONCE_BYTES))
    until: float = field(default_factory=lambda: time.monotonic() + PROOF_S)
    said: bytes = b""


class Admission:
    """Listens, and gives the connections that have proved that they know the token.

    With `slots` it takes one connection for each, numbered from 0, and then closes the listener; with None any number.
    A context manager, or `close` it.
    """

    def __init__(
        self, address: str, token: str, purpose: str = LINK, slots: int | None = 1, port: int = 0
    ) -> None:
        self._token, self._purpose, self._slots = token, purpose, slots
        self._listener = socket.create_server((address, port), backlog=2 * MOST_UNPROVED)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._unproved: list[_Unproved] = []
        self._taken: set[int] = set()
        self._proved: queue.SimpleQueue[tuple[int, socket.socket] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="admission")
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.address[1]

    def take(self, timeout: float | None = None) -> socket.socket:
        """The next connection, which blocks. TimeoutError after `timeout` seconds, OSError once it has been closed."""
        return self._next(timeout)[1]

    def take_all(self) -> list[socket.socket]:
        """The connections of all slots, in the order of their numbers. OSError if it is closed before."""
        found: dict[int, socket.socket] = {}
        try:
            while len(found) < (self._slots or 1):
                slot, found_socket = self._next(None)
                found[slot] = found_socket
        except OSError:
            for each in found.values():
                each.close()
            raise
        return [found[slot] for slot in sorted(found)]

    def _next(self, timeout: float | None) -> tuple[int, socket.socket]:
        try:
            found = self._proved.get(timeout=timeout)
        except queue.Empty as late:
            raise TimeoutError(f"nobody who knows the token came within {timeout} s") from late
        if found is None:
            self._proved.put(None)  # for who asks again
            raise ConnectionAbortedError("it listens no more")
        return found

    def close(self) -> None:
        """Listen no more. Who waits is told, and what has come and was not taken is closed."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        while True:
            try:
                found = self._proved.get_nowait()
            except queue.Empty:
                break
            if found is not None:
                found[1].close()
        self._proved.put(None)

    def __enter__(self) -> Admission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while self._slots is None or len(self._taken) < self._slots:
                for key, _ in self._selector.select(self._patience()):
                    if key.data is None:
                        self._accept()
                    else:
                        self._hear(key.data)
                self._turn_away([each for each in self._unproved if each.until <= time.monotonic()])
        except OSError:
            self._proved.put(None)  # the listener was closed
        finally:
            self._turn_away(list(self._unproved))
            self._selector.close()
            self._listener.close()

    def _patience(self) -> float | None:
        return max(0.0, self._unproved[0].until - time.monotonic()) if self._unproved else None

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as refused:
            if refused.errno not in NO_ROOM:
                raise
            self._turn_away(self._unproved[:1])
            time.sleep(TRY_AGAIN_S)
            return
        connection.setblocking(False)
        one = _Unproved(connection)
        self._unproved.append(one)
        self._selector.register(connection, selectors.EVENT_READ, one)
        self._turn_away(self._unproved[:-MOST_UNPROVED])
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(one.greeting)
        except OSError:
            self._turn_away([one])

    def _hear(self, one: _Unproved) -> None:
        """Take what a connection says, of the length of an answer and no more."""
        if one not in self._unproved:
            return  # turned away a moment ago
        try:
            chunk = one.socket.recv(ANSWER_BYTES - len(one.said))
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        one.said += chunk
        if not chunk:
            self._turn_away([one])
        elif len(one.said) == ANSWER_BYTES:
            self._judge(one)

    def _judge(self, one: _Unproved) -> None:
        nonce, slot, proof = one.said[:NONCE_BYTES], one.said[NONCE_BYTES], one.said[NONCE_BYTES + 1 :]
        mine = _proof(self._token, b"connects", self._purpose, slot, one.greeting, nonce)
        known = hmac.compare_digest(proof, mine)
        if not known or (slot in self._taken if self._slots is not None else slot > 0):
            self._turn_away([one])
            return
        if self._slots is not None and slot >= self._slots:
            self._turn_away([one])
            return
        answer = _proof(self._token, b"listens", self._purpose, slot, one.greeting, nonce)
        try:
            one.socket.sendall(answer)
            one.socket.setblocking(True)
        except OSError:
            self._turn_away([one])
            return
        self._selector.unregister(one.socket)
        self._unproved.remove(one)
        if self._slots is not None:
            self._taken.add(slot)
        self._proved.put((slot, one.socket))

    def _turn_away(self, those: Sequence[_Unproved]) -> None:
        for one in those:
            self._unproved.remove(one)
            self._selector.unregister(one.socket)
            one.socket.close()
