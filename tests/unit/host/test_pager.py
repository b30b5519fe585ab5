"""The pager, with the kernel and a process whose pages follow: it has each as it was, whatever it does meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from protobuf import field

from sealift_agent.constants import PAGE_BYTES
from sealift_agent.images import HEAD_BYTES, LAZY, PRESENT, lazy_ranges
from sealift_agent.memory import pager, supply
from sealift_agent.memory.lazy_socket import LazyPagesSocket
from sealift_agent.memory.rounds import Rounds
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HEAP, STACK = (0x5000_0000_0000, 700), (0x5FFF_0000_0000, 3)
BESIDE = (HEAP[0] + HEAP[1] * PAGE_BYTES, 200)
"""By itself it would be small: with the heap, whose rest it is, it is not."""

NEVER_THERE = (BESIDE[0] + BESIDE[1] * PAGE_BYTES, 8)
FROM_IMAGES = (0x5800_0000_0000, 9)
ELSEWHERE = 0x5A00_0000_0000
PROGRAM = Path(__file__).with_name("restored.py")


def message(**numbered: int) -> bytes:
    body = b"".join(field(int(name[1:]), value) for name, value in numbered.items())
    return struct.pack("<I", len(body)) + body


def write_pagemap(images: Path, *entries: tuple[tuple[int, int], int]) -> None:
    body = [message(_1=1)] + [message(_1=address, _2=pages, _4=flags) for (address, pages), flags in entries]
    (images / "pagemap-7.img").write_bytes(b"\0" * HEAD_BYTES + b"".join(body))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One process, whose mappings are not in the images, but for one. Two of them lie side by side."""
    write_pagemap(tmp_path, (HEAP, LAZY), (BESIDE, LAZY), (FROM_IMAGES, PRESENT), (STACK, LAZY))
    (tmp_path / "pagemap-shmem-9.img").write_bytes(b"\0" * 100)
    return tmp_path


def content(address: int, pages: int) -> bytes:
    """Each page says where it was."""
    return b"".join(
        struct.pack("<Q", address + number * PAGE_BYTES) * (PAGE_BYTES // 8) for number in range(pages)
    )


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
        self.start()

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection, contextlib.suppress(EOFError, OSError):
            while len(self.asked) < self.answers:
                command, pages, address, image = supply.MESSAGE.unpack(
                    receive(connection, supply.MESSAGE.size)
                )
                if command == supply.FLUSH:
                    connection.sendall(bytes(4))
                    return
                self.asked.append(address)
                pages = min(pages, 5)
                answer = supply.ADD | PRESENT << supply.COMMAND_BITS
                connection.sendall(
                    supply.MESSAGE.pack(answer, pages, address, image) + content(address, pages)
                )


class Paged:
    """A pager, and the process that it brings pages for."""

    def __init__(
        self,
        directory: Path,
        ranges: Iterable[tuple[int, int, int]],
        supplied: supply.Remote | supply.Local,
    ) -> None:
        self.said: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self._handover = LazyPagesSocket(directory)
        self._committed, self._say_committed = os.pipe()
        self._pager = pager.Pager(ranges, supplied, self._handover, self, self)  # type: ignore[arg-type]
        self._directory = directory
        self.process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._pager.serve()
        except (OSError, AgentError, ValueError) as failure:
            self.failure = failure

    def depend(self) -> None:
        """As a Commit."""

    def fileno(self) -> int:
        """As a Commit."""
        return self._committed

    def tell(self, **message: Any) -> None:
        """As a Controller."""
        self.said.append(message)

    def calm(self) -> None:
        """The container has been committed, and has found its feet."""
        os.write(self._say_committed, b"x")

    def restore(self, *ranges: tuple[int, int]) -> None:
        """Start the process."""
        words = [f"{start}:{pages}" for start, pages in ranges]
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(self._directory), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # its children end with it
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "restored\n"

    def do(self, *words: object) -> str:
        """Have it do something."""
        assert self.process
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def read(self, start: int, pages: int) -> list[int]:
        """What its pages begin with."""
        return [int(word) for word in self.do("read", start, pages).strip("[]").split(",")]

    def is_over(self) -> bool:
        """Whether the pager has ended by itself, with all in."""
        self._thread.join(10)
        return not self._thread.is_alive() and self.failure is None

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
        self._thread.join(1)


@pytest.fixture
def paged(images: Path) -> Iterator[Callable[..., Paged]]:
    made = []

    def make(source: Source | Rounds, *ranges: tuple[int, int]) -> Paged:
        remote = isinstance(source, Source)
        if isinstance(source, Source):
            remote = supply.Remote(socket.create_connection(source.listener.getsockname()))
            made.append(Paged(images, lazy_ranges(images), remote))
        else:
            made.append(Paged(images, source.lazy_ranges(), supply.Local(source)))
        if ranges:
            made[0].restore(*ranges)
        return made[0]

    yield make
    made[0].close()


def as_they_were(start: int, pages: int) -> list[int]:
    return [start + number * PAGE_BYTES for number in range(pages)]


pytestmark = [pytest.mark.root, pytest.mark.timeout(30)]


def test_only_what_the_images_leave_out_is_brought(images: Path) -> None:
    assert sorted(lazy_ranges(images)) == [(7, *HEAP), (7, *BESIDE), (7, *STACK)]


def test_every_page_is_there_in_any_order_and_small_mappings_come_first(paged: Callable[..., Paged]) -> None:
    source = Source()
    made = paged(source, HEAP, BESIDE, STACK)
    pages = [start + number * PAGE_BYTES for start, count in (HEAP, BESIDE, STACK) for number in range(count)]
    random.Random(1).shuffle(pages)
    assert [made.read(page, 1) for page in pages] == [[page] for page in pages]
    assert made.said == [{"restored": 1}]
    assert source.asked[0] == STACK[0]
    asked = len(source.asked)
    made.calm()
    assert made.is_over()
    assert len(source.asked) == asked, "nothing was missing any more"
    waited = made.said[-1]["waited"]
    assert waited["faults"] > 1
    assert 0 < waited["longest_ns"] < waited["most_ns"] <= waited["complete_ns"]


def test_large_mappings_follow_once_the_container_has_found_its_feet(paged: Callable[..., Paged]) -> None:
    source = Source()
    made = paged(source, HEAP, BESIDE, STACK)
    time.sleep(0.2)
    assert source.asked == [STACK[0]]
    assert made.read(HEAP[0] + 40 * PAGE_BYTES, 1) == [HEAP[0] + 40 * PAGE_BYTES]
    time.sleep(0.2)
    assert min(source.asked[1:]) == HEAP[0] + 32 * PAGE_BYTES, "with its neighbours"
    assert max(source.asked[1:-1]) < HEAP[0] + 64 * PAGE_BYTES
    made.calm()
    assert made.is_over()
    assert made.read(*HEAP) == as_they_were(*HEAP)
    assert len(source.asked) == len(set(source.asked)), "nothing was asked for twice"


def test_what_it_never_had_is_zeroes(paged: Callable[..., Paged]) -> None:
    made = paged(Source(), HEAP, BESIDE, NEVER_THERE, STACK)
    assert made.read(*NEVER_THERE) == [0] * NEVER_THERE[1]
    assert made.read(BESIDE[0], 8) == as_they_were(BESIDE[0], 8)


def test_what_it_has_written_stays(paged: Callable[..., Paged]) -> None:
    made = paged(Source(), HEAP, BESIDE, STACK)
    made.do("write", HEAP[0] + 5 * PAGE_BYTES, 2, 99)
    made.calm()
    assert made.is_over()
    assert made.read(HEAP[0] + 4 * PAGE_BYTES, 4) == [
        HEAP[0] + 4 * PAGE_BYTES,
        99,
        99,
        HEAP[0] + 7 * PAGE_BYTES,
    ]


def test_what_it_has_let_go_does_not_come_back(paged: Callable[..., Paged]) -> None:
    made = paged(Source(), HEAP, BESIDE, STACK)
    made.do("drop", HEAP[0] + 100 * PAGE_BYTES, 200)
    made.do("unmap", HEAP[0] + 400 * PAGE_BYTES, 100)
    assert made.read(HEAP[0] + 100 * PAGE_BYTES, 8) == [0] * 8
    made.calm()
    assert made.is_over()
    assert made.read(HEAP[0] + 100 * PAGE_BYTES, 200) == [0] * 200
    assert made.read(HEAP[0] + 300 * PAGE_BYTES, 100) == as_they_were(HEAP[0] + 300 * PAGE_BYTES, 100)


def test_what_it_has_moved_comes_to_the_new_place(paged: Callable[..., Paged]) -> None:
    made = paged(Source(), HEAP, BESIDE, STACK)
    assert int(made.do("move", HEAP[0] + 40 * PAGE_BYTES, 100, ELSEWHERE)) == ELSEWHERE
    assert made.read(ELSEWHERE, 3) == as_they_were(HEAP[0] + 40 * PAGE_BYTES, 3)
    made.calm()
    assert made.is_over()
    assert made.read(ELSEWHERE, 100) == as_they_were(HEAP[0] + 40 * PAGE_BYTES, 100)
    assert made.read(HEAP[0], 40) == as_they_were(HEAP[0], 40)


def test_a_child_has_what_its_parent_had(paged: Callable[..., Paged]) -> None:
    made = paged(Source(), HEAP, BESIDE, STACK)
    made.read(HEAP[0] + 10 * PAGE_BYTES, 2)
    assert made.do("fork", *HEAP) == str(as_they_were(*HEAP))
    made.calm()
    assert made.is_over()
    assert made.read(*HEAP) == as_they_were(*HEAP)


@pytest.mark.parametrize("here", [False, True], ids=["source", "images"])
@pytest.mark.parametrize("calm", [False, True])
def test_children_that_come_while_pages_do_lack_none(
    paged: Callable[..., Paged], images: Path, here: bool, calm: bool
) -> None:
    if here:
        write_pagemap(images, (HEAP, PRESENT | LAZY), (BESIDE, PRESENT | LAZY), (STACK, PRESENT | LAZY))
        (images / "pages-1.img").write_bytes(b"".join(content(*one) for one in (HEAP, BESIDE, STACK)))
    made = paged(Rounds(images) if here else Source(), HEAP, BESIDE, STACK)
    if calm:
        made.calm()
    assert made.do("family", *HEAP, BESIDE[0]) == "1", "all have found the same"
    assert made.do("fork", *HEAP) == str(as_they_were(*HEAP))
    if not calm:
        made.calm()
    assert made.is_over()
    assert made.read(BESIDE[0], 64) == [0] * 64


def test_a_part_of_what_was_dumped_in_one_piece_may_have_no_mapping(paged: Callable[..., Paged]) -> None:
    made = paged(Source(), (HEAP[0], 20), (HEAP[0] + 22 * PAGE_BYTES, 678), BESIDE, STACK)
    assert made.read(HEAP[0] + 25 * PAGE_BYTES, 1) == [HEAP[0] + 25 * PAGE_BYTES]
    assert made.read(HEAP[0] + 19 * PAGE_BYTES, 1) == [HEAP[0] + 19 * PAGE_BYTES]
    made.calm()
    assert made.is_over()


def test_a_process_that_ends_needs_nothing_more(paged: Callable[..., Paged]) -> None:
    made = paged(Source(), HEAP, BESIDE, STACK)
    made.read(HEAP[0], 1)
    assert made.process
    made.process.kill()
    made.process.wait()
    made.calm()
    assert made.is_over()


def test_images_that_are_here_are_read(paged: Callable[..., Paged], images: Path) -> None:
    write_pagemap(images, (HEAP, PRESENT | LAZY), (STACK, PRESENT | LAZY))
    (images / "pages-1.img").write_bytes(content(*HEAP) + content(*STACK))
    made = paged(Rounds(images), HEAP, NEVER_THERE, STACK)
    assert made.read(HEAP[0] + 300 * PAGE_BYTES, 3) == as_they_were(HEAP[0] + 300 * PAGE_BYTES, 3)
    assert made.read(*STACK) == as_they_were(*STACK)
    assert made.read(*NEVER_THERE) == [0] * NEVER_THERE[1]
    made.calm()
    assert made.is_over()
    assert made.read(*HEAP) == as_they_were(*HEAP)


def test_a_source_that_is_lost_is_said_instead_of_waited_for(paged: Callable[..., Paged]) -> None:
    made = paged(Source(answers=3), HEAP, BESIDE, STACK)
    made.calm()
    assert not made.is_over()
    assert "page server was lost" in str(made.failure)


def test_a_restore_that_fails_is_said(paged: Callable[..., Paged], images: Path) -> None:
    made = paged(Source())
    with socket.socket(socket.AF_UNIX) as restore:
        held = os.open(images, os.O_PATH)
        restore.connect(f"/proc/self/fd/{held}/lazy-pages.socket")
        os.close(held)
        restore.sendall(struct.pack("=i", -3))
    assert not made.is_over()
    assert "ended before all was restored" in str(made.failure)
