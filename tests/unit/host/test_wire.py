"""Nothing of a connection is lost between its messages and what follows them."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

from sealift.host.agent.wire import Link, listen

if TYPE_CHECKING:
    from pathlib import Path


def test_what_comes_right_behind_the_token_is_not_lost() -> None:
    data = bytes(range(256)) * 100
    hello = json.dumps({"token": "word"}).encode() + b"\n"

    def send() -> None:
        with socket.create_connection(listener.getsockname()) as connection:
            connection.sendall(hello + data)

    with listen("127.0.0.1") as listener:
        sender = threading.Thread(target=send)
        sender.start()
        sender.join()  # all that fits is there before the token is looked at
        link = Link.accept(listener, "word", timeout=5)
        assert b"".join(link.rest()) == data
        link.close()


def test_files_that_are_sent_together_arrive_one_by_one(tmp_path: Path) -> None:
    here, there = map(Link, _pair())
    for name, content in (("one", b"1" * 10), ("none", b""), ("two", b"2" * 100_000)):
        (tmp_path / name).write_bytes(content)
    names = ["one", "none", "two"]
    with here.together():
        here.send(files=names)
        for name in names:
            here.send_file(tmp_path / name, (tmp_path / name).stat().st_size)
    assert there.receive(5) == {"files": names}
    for name in names:
        size = (tmp_path / name).stat().st_size
        there.receive_file(tmp_path / f"{name}.received", size)
        assert (tmp_path / f"{name}.received").read_bytes() == (tmp_path / name).read_bytes()
    here.close()
    there.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    with listen("127.0.0.1") as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]
