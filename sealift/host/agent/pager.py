"""A post-copy's memory, fetched ahead: stands between CRIU's daemon here and CRIU's page server at the source.

CRIU's daemon asks for one page when a process needs one, and waits for the way there and back each time; a process that
has just been restored needs hundreds. This one begins to fetch before the process runs, small mappings first (stacks,
data of programs, a heap's own records), and answers from what it has. What is asked for and not there goes first, with
its neighbours.

A program of its own, started before the freeze: it outlives the agent, since without it memory would never be complete.
The messages are those of CRIU 4 (criu/page-xfer.c): 32 bytes, command, pages, address, image; then the pages.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .criu import PAGE_BYTES, fields, messages
from .wire import LOOPBACK, AgentError, listen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .wire import Controller

MESSAGE = struct.Struct("<IxxxxQQQ")
GET, ADD, FLUSH, CLOSE = 7, 6, 0x1023, 0x1024
COMMAND_BITS = 16
PRESENT = 4
"""PS_IOV_GET, PS_IOV_ADD_F, PS_IOV_FLUSH, PS_IOV_FLUSH_N_CLOSE, PS_CMD_BITS; PE_PRESENT (criu/include/pagemap.h)."""

LAZY = 2
"""PE_LAZY: a page that is not in the images."""

BLOCK_PAGES = 32
BEFORE_S, BESIDE_S = 0.01, 0.002
"""How long an answer to CRIU's own fetching ahead is put off before the commit, and while the container finds its feet
after it. CRIU asks for more each time that nothing else comes up, and who needs a page of it waits for the whole."""

WINDOW = 3
"""Blocks asked for and not yet come: enough to keep a link busy, few enough that an urgent one is not far behind."""

KEPT_BLOCKS = 64
"""How many blocks are kept after all of their pages have been given."""

SMALL_PAGES = 256
"""Larger mappings wait until the container has been committed: before, fetching would take time from its restore."""

GENTLE_S = 0.3
"""So long after the commit only what is asked for is fetched: what runs again needs a few pages of large mappings
first, and each would wait for what is on its way already."""


@dataclass(eq=False)
class Block:
    """Some pages of one process: `image` is its process id in the container."""

    image: int
    address: int
    pages: int
    data: bytearray | None = None
    arrived: int = 0
    asked: bool = False
    delivered: int = 0
    """Which of its pages CRIU's daemon has been given: a bit for each."""

    def is_through(self) -> bool:
        """Whether it has been given all of them."""
        return self.delivered == (1 << self.pages) - 1

    def forget(self) -> None:
        """Let go of what it holds; it may be asked for anew."""
        self.data, self.arrived, self.asked = None, 0, False


def lazy_ranges(images: Path) -> Iterator[tuple[int, int, int]]:
    """What the images leave out: process, address, pages (images/pagemap.proto)."""
    for path in images.glob("pagemap-*.img"):
        name = path.stem.removeprefix("pagemap-")
        if not name.isdigit():
            continue  # pages of shared memory are never lazy
        for entry in map(dict, map(fields, islice(messages(path), 1, None))):
            if int(entry.get(4, 0)) & LAZY:
                yield int(name), int(entry[1]), int(entry.get(5) or entry[2])


class Mapping:
    """Pages of one process, in a row, that the images leave out. Its blocks are made when they are needed."""

    def __init__(self, image: int, address: int, pages: int) -> None:
        self.image = image
        self.address = address
        self.pages = pages
        self._blocks: list[Block | None] = [None] * -(-pages // BLOCK_PAGES)

    def __iter__(self) -> Iterator[Block]:
        return (self.block(number * BLOCK_PAGES) for number in range(len(self._blocks)))

    def block(self, page: int) -> Block:
        """The block that a page is in, counted from the mapping's first."""
        number = page // BLOCK_PAGES
        block = self._blocks[number]
        if block is None:
            first = number * BLOCK_PAGES
            address = self.address + first * PAGE_BYTES
            block = self._blocks[number] = Block(self.image, address, min(BLOCK_PAGES, self.pages - first))
        return block


class Pager:
    """Fetches all of it. `serve` answers until CRIU's daemon has everything."""

    def __init__(self, images: Path, source: tuple[str, int]) -> None:
        mappings = [Mapping(*found) for found in lazy_ranges(images)]
        mappings.sort(key=lambda mapping: mapping.pages)
        self._ahead = chain.from_iterable(mapping for mapping in mappings if mapping.pages <= SMALL_PAGES)
        self._behind = chain.from_iterable(mapping for mapping in mappings if mapping.pages > SMALL_PAGES)
        self._urgent: deque[Block] = deque()
        self._through: deque[Block] = deque()
        self._by_address = sorted(mappings, key=lambda mapping: (mapping.image, mapping.address))
        self._addresses = [(mapping.image, mapping.address) for mapping in self._by_address]
        self._behind_from: float | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._lost: Exception | None = None
        self._source = socket.create_connection(source, timeout=10)
        self._source.settimeout(None)
        self._source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fetcher = threading.Thread(target=self._fetch, daemon=True)
        self._fetcher.start()

    def run(self) -> None:
        """The container has been committed to this host: all the rest may follow, once it has found its feet."""
        with self._changed:
            self._behind_from = time.monotonic() + GENTLE_S
            self._changed.notify_all()

    def _fetch(self) -> None:
        asked: deque[Block] = deque()
        try:
            while True:
                with self._changed:
                    while not self._closing and len(asked) < WINDOW:
                        block = self._choose()
                        if block is not None:
                            block.asked = True
                            asked.append(block)
                            self._ask(block)
                        elif asked:
                            break
                        else:
                            self._changed.wait(self._patience())
                    if not asked:
                        return
                self._take(asked)
        except (OSError, AgentError, ValueError) as lost:
            self._lost = lost
        finally:
            with self._changed:
                self._changed.notify_all()

    def _choose(self) -> Block | None:
        """What is to be asked for now, if anything."""
        while self._urgent:
            if not (block := self._urgent.popleft()).asked:
                return block
        sources = [self._ahead]
        if self._behind_from is not None and time.monotonic() >= self._behind_from:
            sources.append(self._behind)
        return next((block for blocks in sources for block in blocks if not block.asked), None)

    def _patience(self) -> float | None:
        """How long to wait for a word before looking again, in seconds."""
        if self._behind_from is None:
            return None
        left = self._behind_from - time.monotonic()
        return left if left > 0 else None

    def _find(self, image: int, address: int) -> Mapping:
        position = bisect_right(self._addresses, (image, address)) - 1
        mapping = self._by_address[position]
        if position < 0 or mapping.image != image or address >= mapping.address + mapping.pages * PAGE_BYTES:
            raise AgentError(f"CRIU's daemon asks for {address:#x} of process {image}, which the images have")
        return mapping

    def _ask(self, block: Block) -> None:
        rest = block.pages - block.arrived
        address = block.address + block.arrived * PAGE_BYTES
        self._source.sendall(MESSAGE.pack(GET, rest, address, block.image))

    def _take(self, asked: deque[Block]) -> None:
        """The next answer. It may have fewer pages than were asked for: the rest is asked for again."""
        command, pages, _, _ = MESSAGE.unpack(_exactly(self._source, MESSAGE.size))
        block = asked.popleft()
        if command & ((1 << COMMAND_BITS) - 1) != ADD or not 0 < pages <= block.pages - block.arrived:
            raise AgentError(f"the source's page server answers with {command:#x} and {pages} pages")
        if block.data is None:
            block.data = bytearray(block.pages * PAGE_BYTES)
        view = memoryview(block.data)[block.arrived * PAGE_BYTES : (block.arrived + pages) * PAGE_BYTES]
        _exactly_into(self._source, view)
        with self._changed:
            block.arrived += pages
            self._changed.notify_all()
        if block.arrived < block.pages:
            asked.append(block)
            self._ask(block)

    def serve(self, daemon: socket.socket) -> None:
        """Answer CRIU's daemon. Returns when it has all that it wants."""
        while True:
            command, pages, address, image = MESSAGE.unpack(_exactly(daemon, MESSAGE.size))
            if command in {FLUSH, CLOSE}:
                with self._changed:
                    self._closing = True
                    self._changed.notify_all()
                self._fetcher.join()
                self._source.sendall(MESSAGE.pack(command, 0, 0, 0))
                daemon.sendall(_exactly(self._source, 4))
                return
            if command != GET:
                raise AgentError(f"CRIU's daemon asks for {command:#x}")
            if pages > 1 and self._is_gentle():
                self._make_way(daemon, image, address, pages)
            daemon.sendall(MESSAGE.pack(ADD | PRESENT << COMMAND_BITS, pages, address, image))
            while pages:
                mapping = self._find(image, address)
                block = mapping.block((address - mapping.address) // PAGE_BYTES)
                first = (address - block.address) // PAGE_BYTES
                count = min(pages, block.pages - first)
                self._wait_for(block, first + count)
                assert block.data is not None  # noqa: S101 - it has arrived
                daemon.sendall(memoryview(block.data)[first * PAGE_BYTES : (first + count) * PAGE_BYTES])
                self._delivered(block, first, count)
                pages -= count
                address += count * PAGE_BYTES

    def _delivered(self, block: Block, first: int, count: int) -> None:
        """Some of its pages have been given. The last few blocks are kept.

        Where a process changes its mappings at that moment, the kernel does not let CRIU's daemon put pages in
        (UFFDIO_COPY says EAGAIN): it asks for the same ones again.
        """
        block.delivered |= ((1 << count) - 1) << first
        if block.is_through() and block not in self._through:
            self._through.append(block)
            if len(self._through) > KEPT_BLOCKS:
                with self._changed:
                    self._through.popleft().forget()

    def _is_gentle(self) -> bool:
        return self._behind_from is None or time.monotonic() < self._behind_from

    def _make_way(self, daemon: socket.socket, image: int, address: int, pages: int) -> None:
        """Before an answer that no process waits for: fetch it and what will be asked for next, and let a fault come.

        CRIU asks for pages ahead, sixteen or more, and takes answers in the order of its questions: what has to be
        fetched first is a millisecond for each fault behind it, and a process that has just been restored has dozens.
        So the answer is at hand before it is given, and given the moment that something else is asked. It is whole: of
        pages that it has asked for CRIU asks for none by itself, whoever needs it.
        """
        mapping = self._find(image, address)
        first = (address - mapping.address) // PAGE_BYTES
        last = min(first + 2 * pages, mapping.pages)
        with self._changed:
            for page in (*range(first, last, BLOCK_PAGES), last - 1):
                if not (block := mapping.block(page)).asked:
                    self._urgent.append(block)
            self._changed.notify_all()
        select.select([daemon], [], [], BEFORE_S if self._behind_from is None else BESIDE_S)

    def _wait_for(self, block: Block, pages: int) -> None:
        with self._changed:
            if not block.asked:
                self._urgent.append(block)
                self._changed.notify_all()
            self._changed.wait_for(lambda: block.arrived >= pages or self._lost is not None)
            if block.arrived < pages:
                raise AgentError(f"the source's page server was lost: {self._lost}")


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    _exactly_into(connection, memoryview(data))
    return bytes(data)


def _exactly_into(connection: socket.socket, view: memoryview) -> None:
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise AgentError("the connection was closed")
        view = view[count:]


class Started:
    """A pager that waits for its word. `port` is where it listens on this host's loopback."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "pager.log"
        self._process = subprocess.Popen(
            # The directory is for whoever has to find out later whose it is (`criu.workers`).
            [sys.executable, sys.argv[0], "pager", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("wb"),
            start_new_session=True,
        )
        assert self._process.stdout  # noqa: S101 - it was asked for
        self.port = int(json.loads(self._process.stdout.readline())["port"])

    def begin(self, images: Path, source: tuple[str, int]) -> None:
        """Have it fetch what these images leave out."""
        self._say({"images": str(images), "source": list(source)})

    def run(self) -> None:
        """Tell it that the container has been committed to this host."""
        with contextlib.suppress(BrokenPipeError):  # it is through
            self._say({"committed": True})

    def _say(self, word: dict[str, Any]) -> None:
        assert self._process.stdin  # noqa: S101 - it was asked for
        self._process.stdin.write(f"{json.dumps(word)}\n".encode())
        self._process.stdin.flush()

    def complaint(self) -> str:
        """Why it has ended; nothing if it has not, or as it should."""
        return self._log.read_text(errors="replace").strip() if self._process.poll() else ""

    def end(self) -> None:
        """End it, if it has not by itself."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        """Wait for its own end, which follows the daemon's."""
        self._process.wait()


def _await_word(orders: Iterator[dict[str, Any]], pager: Pager, served: threading.Event) -> None:
    """An agent that dies before any process could need a page takes this program with it: the source waits for it."""
    if next(orders, None) is None and not served.is_set():
        os._exit(1)
    pager.run()


def main(controller: Controller) -> None:
    """Say where it listens, take one order, serve one daemon. The next word, or the agent's end, lets it run."""
    listener = listen(LOOPBACK)
    controller.tell(port=listener.getsockname()[1])
    orders = controller.orders()
    order: dict[str, Any] | None = next(orders, None)
    if order is None:
        return
    try:
        pager = Pager(Path(order["images"]), (order["source"][0], order["source"][1]))
        served = threading.Event()
        threading.Thread(target=_await_word, args=(orders, pager, served), daemon=True).start()
        daemon, _ = listener.accept()
        daemon.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        served.set()
        pager.serve(daemon)
    except (OSError, AgentError, KeyError, ValueError) as lost:
        sys.stderr.write(f"{lost}\n")
        os._exit(1)  # the daemon sees its connection end
