"""Whoever connects proves that it knows the token, and so does the listener; nobody else gets or gives a byte."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sealift_agent import admission
from sealift_agent.admission import ANSWER_BYTES, GREETING_BYTES, Admission, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.alone

HERE = "127.0.0.1"
TOKEN = "0123456789abcdef0123456789abcdef"
LOOP = b"[" * 100_000
GARBAGE = [b"[]\n", b'{"token": "x"}\n', LOOP + b"\n", bytes(1000), b"\xff" * 1000, b"GET / HTTP/1.0\r\n\r\n"]
AT_ONCE_S = 2
"""Far less than what a silent connection is given."""


@pytest.fixture
def listening() -> Iterator[Admission]:
    with Admission(HERE, TOKEN, "pages", slots=3) as made:
        yield made


def reached(listening: Admission) -> socket.socket:
    return socket.create_connection(listening.address, timeout=10)


def until_closed(connection: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(1 << 16):
            got += chunk
    return got


class Recorder(threading.Thread):
    """Stands between, as somebody in the network does, and keeps what crosses."""

    def __init__(self, there: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server((HERE, 0))
        self.port = self._listener.getsockname()[1]
        self._there = there
        self.said, self.heard = bytearray(), bytearray()
        self.start()

    def run(self) -> None:
        with self._listener, self._listener.accept()[0] as near, socket.create_connection(self._there) as far:
            back = threading.Thread(target=self._carry, args=(far, near, self.heard), daemon=True)
            back.start()
            self._carry(near, far, self.said)
            back.join()

    @staticmethod
    def _carry(origin: socket.socket, target: socket.socket, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while chunk := origin.recv(1 << 16):
                record += chunk
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)


def test_both_prove_themselves_and_nothing_is_added_to_what_follows(listening: Admission) -> None:
    data = bytes(range(256)) * 1000
    with connect(HERE, listening.port, TOKEN, "pages") as here, listening.take(5) as there:
        assert here.gettimeout() is there.gettimeout() is None
        sender = threading.Thread(target=here.sendall, args=(data,))
        sender.start()
        assert there.recv(len(data), socket.MSG_WAITALL) == data
        sender.join()
        there.sendall(b"answer")
        assert here.recv(100) == b"answer"


@pytest.mark.parametrize(("token", "purpose"), [("f" * 32, "pages"), ("", "pages"), (TOKEN, "page")])
def test_another_token_or_purpose_is_turned_away(
    listening: Admission, token: str, purpose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "TRY_AGAIN_S", 0)
    with pytest.raises(ConnectionError, match="token"):
        connect(HERE, listening.port, token, purpose)
    with pytest.raises(TimeoutError):
        listening.take(0.1)


def test_what_listens_in_the_other_s_place_is_found_out() -> None:
    with socket.create_server((HERE, 0)) as impostor:

        def answer() -> None:
            connection, _ = impostor.accept()
            with connection:
                connection.sendall(admission.VERSION + bytes(32))
                connection.recv(ANSWER_BYTES, socket.MSG_WAITALL)
                connection.sendall(bytes(32))

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ConnectionError, match="does not know the token"):
            connect(HERE, impostor.getsockname()[1], TOKEN, "pages")


def test_what_listens_and_is_silent_is_given_up_in_time() -> None:
    with socket.create_server((HERE, 0)) as silent:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connect(HERE, silent.getsockname()[1], TOKEN, timeout=0.5)
        assert time.monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize("said", [b"", *GARBAGE], ids=range(len(GARBAGE) + 1))
def test_a_stranger_gets_a_greeting_and_nothing_more(
    listening: Admission, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PROOF_S", 0.3)
    with reached(listening) as stranger:
        with contextlib.suppress(ConnectionError):
            stranger.sendall(said)
        assert len(until_closed(stranger)) in {0, GREETING_BYTES}
    with connect(HERE, listening.port, TOKEN, "pages"), listening.take(5):
        pass


def test_neither_silent_ones_nor_garbage_hold_anybody_up(listening: Admission) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(4 * admission.MOST_UNPROVED):
            one = stack.enter_context(reached(listening))
            if number % 2:
                with contextlib.suppress(ConnectionError):
                    one.sendall(GARBAGE[number % len(GARBAGE)])
        began = time.monotonic()
        for slot in range(3):
            stack.enter_context(connect(HERE, listening.port, TOKEN, "pages", slot))
        assert len(listening.take_all()) == 3
        assert time.monotonic() - began < AT_ONCE_S


def test_a_flood_of_strangers_does_not_keep_out_who_knows_the_token(listening: Admission) -> None:
    over = threading.Event()

    def flood() -> None:
        held: list[socket.socket] = []
        while not over.is_set():
            with contextlib.suppress(OSError):
                held.append(reached(listening))
            if len(held) > 200:
                held.pop(0).close()
        for each in held:
            each.close()

    floods = [threading.Thread(target=flood, daemon=True) for _ in range(2)]
    for each in floods:
        each.start()
    time.sleep(0.2)
    try:
        with connect(HERE, listening.port, TOKEN, "pages"), listening.take(5):
            pass
    finally:
        over.set()
        for each in floods:
            each.join()


def test_one_that_says_a_byte_now_and_then_is_given_no_more_time(
    listening: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PROOF_S", 0.5)
    began = time.monotonic()
    with reached(listening) as slow, contextlib.suppress(ConnectionError):
        while time.monotonic() - began < 5:
            slow.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() - began < AT_ONCE_S


def test_nothing_that_crosses_is_the_token_or_can_be_used_again(listening: Admission) -> None:
    between = Recorder(listening.address)
    with connect(HERE, between.port, TOKEN, "pages"), listening.take(5):
        pass
    between.join(5)
    crossed = bytes(between.said + between.heard)
    assert len(between.said) == ANSWER_BYTES
    assert TOKEN.encode() not in crossed
    assert bytes.fromhex(TOKEN) not in crossed
    for slot in (0, 1):  # the one that was taken, and one that is free
        with reached(listening) as again:
            said = bytearray(between.said)
            said[32] = slot
            again.sendall(said)
            assert len(until_closed(again)) == GREETING_BYTES
    with socket.create_server((HERE, 0)) as impostor:

        def play() -> None:
            connection, _ = impostor.accept()
            with connection:
                connection.sendall(bytes(between.heard))
                connection.recv(1000)

        threading.Thread(target=play, daemon=True).start()
        with pytest.raises(ConnectionError, match="does not know the token"):
            connect(HERE, impostor.getsockname()[1], TOKEN, "pages")


def test_each_slot_is_taken_once_and_the_listener_goes_with_the_last(
    listening: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "TRY_AGAIN_S", 0)
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context(connect(HERE, listening.port, TOKEN, "pages", slot)) for slot in (2, 0)]
        for taken in (0, 2, 3, 255):
            with pytest.raises(ConnectionError):
                connect(HERE, listening.port, TOKEN, "pages", taken)
        ours.append(stack.enter_context(connect(HERE, listening.port, TOKEN, "pages", 1)))
        for slot, connection in zip((2, 0, 1), ours, strict=True):
            connection.sendall(bytes([slot]))
        assert [each.recv(1) for each in listening.take_all()] == [b"\0", b"\1", b"\2"]
        listening._thread.join(5)
        with pytest.raises(ConnectionRefusedError):
            reached(listening)


def test_one_without_slots_takes_any_number() -> None:
    with Admission(HERE, TOKEN, slots=None) as listening, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connect(HERE, listening.port, TOKEN))
            stack.enter_context(listening.take(5))


def test_one_that_leaves_early_harms_nobody(listening: Admission) -> None:
    for size in (0, 1, ANSWER_BYTES - 1):
        with reached(listening) as early:
            early.sendall(bytes(size))
    with connect(HERE, listening.port, TOKEN, "pages"), listening.take(5):
        pass


def test_who_waits_is_told_when_it_listens_no_more() -> None:
    made = Admission(HERE, TOKEN, "pages", slots=2)
    failed: list[OSError] = []

    def wait() -> None:
        try:
            made.take_all()
        except OSError as closed:
            failed.append(closed)

    waiting = threading.Thread(target=wait)
    waiting.start()
    with connect(HERE, made.port, TOKEN, "pages") as one:
        time.sleep(0.1)
        made.close()
        waiting.join(5)
        assert len(failed) == 1
        assert one.recv(1) == b""
    made.close()
