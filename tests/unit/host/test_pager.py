"""The pager between CRIU's daemon and its page server: it brings the pages that are asked for, in any order."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest
from protobuf import field

from sealift.host.agent.images import HEAD_BYTES, PAGE_BYTES
from sealift.host.agent.memory import pager
from sealift.host.agent.wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

HEAP, STACK = (0x5000_0000_0000, 700), (0x7FFF_0000_0000, 3)
BESIDE = (HEAP[0] + HEAP[1] * PAGE_BYTES, 300)
FROM_IMAGES = (0x6000_0000_0000, 9)


def message(**numbered: int) -> bytes:
    body = b"".join(field(int(name[1:]), value) for name, value in numbered.items())
    return struct.pack("<I", len(body)) + body


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One process, whose mappings are not in the images, but for one. Two of them lie side by side."""
    entries = [message(_1=1)]
    entries += [
        message(_1=address, _2=pages, _4=flags)
        for (address, pages), flags in (
            (HEAP, pager.LAZY),
            (BESIDE, pager.LAZY),
            (FROM_IMAGES, pager.PRESENT),
            (STACK, pager.LAZY),
        )
    ]
    (tmp_path / "pagemap-7.img").write_bytes(b"\0" * HEAD_BYTES + b"".join(entries))
    (tmp_path / "pagemap-shmem-9.img").write_bytes(b"\0" * 100)
    return tmp_path


def page(address: int) -> bytes:
    return struct.pack("<Q", address) * (PAGE_BYTES // 8)


def content(address: int, pages: int) -> bytes:
    return b"".join(page(address + number * PAGE_BYTES) for number in range(pages))


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


class Source(threading.Thread):
    """A page server that answers with at most five pages at a time, as CRIU's does at the end of one of its pipes."""

    def __init__(self, answers: int = 1 << 30) -> None:
        super().__init__(daemon=True)
        self.answers = answers
        self.asked: list[int] = []
        self.listener = socket.create_server(("127.0.0.1", 0))

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            while len(self.asked) < self.answers:
                command, pages, address, image = pager.MESSAGE.unpack(receive(connection, pager.MESSAGE.size))
                if command == pager.FLUSH:
                    connection.sendall(bytes(4))
                    return
                self.asked.append(address)
                pages = min(pages, 5)
                answer = pager.ADD | pager.PRESENT << pager.COMMAND_BITS
                connection.sendall(
                    pager.MESSAGE.pack(answer, pages, address, image) + content(address, pages)
                )


def serve(served: pager.Pager, here: socket.socket) -> None:
    with contextlib.suppress(AgentError, OSError):  # the end of a test is the end of its connection
        pager.serve(here, served)


def ask(daemon: socket.socket, address: int, pages: int) -> None:
    """As CRIU's daemon asks."""
    daemon.sendall(pager.MESSAGE.pack(pager.GET, pages, address, 7))
    _, count, where, image = pager.MESSAGE.unpack(receive(daemon, pager.MESSAGE.size))
    assert (count, where, image) == (pages, address, 7)
    assert receive(daemon, pages * PAGE_BYTES) == content(address, pages)


def test_only_what_the_images_leave_out_is_fetched(images: Path) -> None:
    assert sorted(pager.lazy_ranges(images)) == [(7, *HEAP), (7, *BESIDE), (7, *STACK)]


def test_every_page_is_brought_in_any_order_and_small_mappings_come_first(images: Path) -> None:
    source = Source()
    source.start()
    served = pager.Pager(images, source.listener.getsockname())
    here, daemon = socket.socketpair()
    asks = [(HEAP[0] + n * PAGE_BYTES, 1) for n in range(0, 600, 3)] + [(HEAP[0] + 600 * PAGE_BYTES, 90)]
    asks += [STACK, (HEAP[0] + 690 * PAGE_BYTES, 60)]
    random.Random(1).shuffle(asks)
    server = threading.Thread(target=pager.serve, args=(here, served), daemon=True)
    server.start()
    for address, pages in asks:
        ask(daemon, address, pages)
    daemon.sendall(pager.MESSAGE.pack(pager.FLUSH, 0, 0, 0))
    assert receive(daemon, 4) == bytes(4)
    server.join(5)
    assert not server.is_alive()
    assert source.asked[0] == STACK[0]


def test_large_mappings_follow_once_all_may(images: Path) -> None:
    source = Source()
    source.start()
    served = pager.Pager(images, source.listener.getsockname())
    time.sleep(0.1)
    assert source.asked == [STACK[0]]
    served.fetch_all()
    time.sleep(0.5)
    assert set(range(HEAP[0], BESIDE[0], pager.BLOCK_PAGES * PAGE_BYTES)) <= set(source.asked)


def test_what_was_given_is_given_again(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pager, "KEPT_BLOCKS", 2)
    source = Source()
    source.start()
    served = pager.Pager(images, source.listener.getsockname())
    served.fetch_all()
    here, daemon = socket.socketpair()
    threading.Thread(target=serve, args=(served, here), daemon=True).start()
    for _ in range(2):
        for first in range(0, 640, 48):
            ask(daemon, HEAP[0] + first * PAGE_BYTES, 48)
            ask(daemon, HEAP[0] + first * PAGE_BYTES, 48)


def test_a_page_that_the_images_have_is_not_asked_for(images: Path) -> None:
    source = Source()
    source.start()
    served = pager.Pager(images, source.listener.getsockname())
    here, daemon = socket.socketpair()
    daemon.sendall(pager.MESSAGE.pack(pager.GET, 1, FROM_IMAGES[0], 7))
    with pytest.raises(AgentError, match="which the images have"):
        pager.serve(here, served)


def test_a_source_that_is_lost_is_said_instead_of_waited_for(images: Path) -> None:
    source = Source(answers=3)
    source.start()
    served = pager.Pager(images, source.listener.getsockname())
    here, daemon = socket.socketpair()
    daemon.sendall(pager.MESSAGE.pack(pager.GET, 1, HEAP[0] + 650 * PAGE_BYTES, 7))
    with pytest.raises(AgentError, match="page server was lost"):
        pager.serve(here, served)
