"""Nothing of a connection is lost between its messages and what follows them."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from sealift_agent.wire import AgentError, Link, listen

if TYPE_CHECKING:
    from pathlib import Path


def test_what_comes_right_behind_a_message_is_not_lost() -> None:
    data = bytes(range(256)) * 100
    here, there = map(Link, _pair())
    here.send(then="data")
    here.socket.sendall(data)
    here.close()
    assert there.receive(5) == {"then": "data"}
    assert b"".join(there.rest()) == data
    there.close()


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{",
        b"\xff",
        b"null",
        b'"token"',
        b"1" * 5000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": NaN}',
    ],
    ids=["list", "half", "no text", "null", "word", "digits", "lists", "tables", "no number"],
)
def test_what_is_no_message_is_said_in_a_sentence(line: bytes) -> None:
    here, there = map(Link, _pair())
    here.socket.sendall(line + b"\n")
    with pytest.raises(AgentError, match="sent"):
        there.receive(5)
    here.close()
    there.close()


def test_a_message_without_an_end_is_not_read_for_ever() -> None:
    here, there = map(Link, _pair())
    sender = threading.Thread(target=_flood, args=(here.socket,))
    sender.start()
    with pytest.raises(AgentError):
        there.receive(5)
    there.close()
    sender.join(5)
    assert not sender.is_alive()
    here.close()


def _flood(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"x" * (8 << 20))


def test_files_that_are_sent_together_arrive_one_by_one(tmp_path: Path) -> None:
    here, there = map(Link, _pair())
    for name, content in (("one", b"1" * 10), ("none", b""), ("two", b"2" * 100_000)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "three").write_bytes(b"3" * 7)
    names = ["one", "none", "two", "three"]
    with here.together():
        here.send(files=names)
        here.send_files((tmp_path / name, (tmp_path / name).stat().st_size) for name in names)
    assert there.receive(5) == {"files": names}
    for name in names:
        size = (tmp_path / name).stat().st_size
        there.receive_file(tmp_path / f"{name}.received", size)
        assert (tmp_path / f"{name}.received").read_bytes() == (tmp_path / name).read_bytes()
    here.close()
    there.close()


def test_a_file_that_shrinks_while_it_is_sent_is_said(tmp_path: Path) -> None:
    here, there = map(Link, _pair())
    for size in (10, 100_000):
        (tmp_path / "one").write_bytes(b"1" * (size - 1))
        with pytest.raises(AgentError, match="shrank while it was sent"):
            here.send_files([(tmp_path / "one", size)])
    here.close()
    there.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    with listen("127.0.0.1") as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]
