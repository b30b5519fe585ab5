"""A post-copy's memory, fetched ahead: stands between CRIU's daemon here and CRIU's page server at the source.

CRIU's daemon asks for one page when a process needs one, and waits for the way there and back each time; a process that
has just been restored needs hundreds. This one begins to fetch before the process runs, small mappings first (stacks,
data of programs, a heap's own records), and answers from what it has. What is asked for and not there goes first, with
its neighbours. All the rest follows once the container has found its feet.

A program of its own, started before the freeze: it outlives the agent, since without it memory would never be complete.
Where memory came ahead in rounds, it brings that (`rounds`); where it is all in one dump's images, it just keeps the
`door`, since CRIU's daemon reads those itself.
The messages are those of CRIU 4 (criu/page-xfer.c): 32 bytes, command, pages, address, image; then the pages.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..images import LAZY, PAGE_BYTES, PRESENT, pagemaps, runs
from ..wire import LOOPBACK, AgentError, listen
from .door import Door
from .lazy import spare
from .rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..wire import Controller

MESSAGE = struct.Struct("<IxxxxQQQ")
GET, ADD, FLUSH, CLOSE = 7, 6, 0x1023, 0x1024
COMMAND_BITS = 16
"""PS_IOV_GET, PS_IOV_ADD_F, PS_IOV_FLUSH, PS_IOV_FLUSH_N_CLOSE, PS_CMD_BITS."""

BLOCK_PAGES = 32
WINDOW = 3
"""Blocks asked for and not yet come: enough to keep a link busy, few enough that an urgent one is not far behind."""

KEPT_BLOCKS = 64
"""How many blocks are kept after all of their pages have been given."""

SMALL_PAGES = 256
"""Larger mappings wait until the container has been committed: before, fetching would take time from its restore."""

GENTLE_S = 0.3
"""So long after the commit only what is asked for is brought: what runs again needs a few pages of large mappings
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
    """What the images leave out: process, address, pages."""
    for image, path in pagemaps(images):
        for run in runs(path.read_bytes()):
            if run.flags & LAZY:
                yield image, run.address, run.pages


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
    """Fetches all of it."""

    def __init__(self, images: Path, source: tuple[str, int]) -> None:
        mappings = [Mapping(*found) for found in lazy_ranges(images)]
        mappings.sort(key=lambda mapping: mapping.pages)
        self._ahead = chain.from_iterable(mapping for mapping in mappings if mapping.pages <= SMALL_PAGES)
        self._behind = chain.from_iterable(mapping for mapping in mappings if mapping.pages > SMALL_PAGES)
        self._urgent: deque[Block] = deque()
        self._through: deque[Block] = deque()
        self._by_address = sorted(mappings, key=lambda mapping: (mapping.image, mapping.address))
        self._addresses = [(mapping.image, mapping.address) for mapping in self._by_address]
        self._all = False
        self._changed = threading.Condition()
        self._closing = False
        self._lost: Exception | None = None
        self._source = socket.create_connection(source, timeout=10)
        self._source.settimeout(None)
        self._source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fetcher = threading.Thread(target=self._fetch, daemon=True)
        self._fetcher.start()

    def fetch_all(self) -> None:
        """All the rest may follow."""
        with self._changed:
            self._all = True
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
                            self._changed.wait()
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
        sources = [self._ahead, self._behind] if self._all else [self._ahead]
        return next((block for blocks in sources for block in blocks if not block.asked), None)

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

    def bring(self, image: int, address: int, pages: int) -> Iterator[memoryview]:
        """So many pages of a process, in pieces, as they come."""
        while pages:
            mapping = self._find(image, address)
            block = mapping.block((address - mapping.address) // PAGE_BYTES)
            first = (address - block.address) // PAGE_BYTES
            count = min(pages, block.pages - first)
            self._wait_for(block, first + count)
            assert block.data is not None  # noqa: S101 - it has arrived
            yield memoryview(block.data)[first * PAGE_BYTES : (first + count) * PAGE_BYTES]
            self._delivered(block, first, count)
            pages -= count
            address += count * PAGE_BYTES

    def end(self, command: int) -> bytes:
        """Tell the source that CRIU's daemon has all that it wants. Returns its answer."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._fetcher.join()
        self._source.sendall(MESSAGE.pack(command, 0, 0, 0))
        return _exactly(self._source, 4)

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

    def _wait_for(self, block: Block, pages: int) -> None:
        with self._changed:
            if not block.asked:
                self._urgent.append(block)
                self._changed.notify_all()
            self._changed.wait_for(lambda: block.arrived >= pages or self._lost is not None)
            if block.arrived < pages:
                raise AgentError(f"the source's page server was lost: {self._lost}")


def serve(daemon: socket.socket, pages: Pager | Rounds) -> None:
    """Answer CRIU's daemon. Returns when it has all that it wants."""
    while True:
        command, count, address, image = MESSAGE.unpack(_exactly(daemon, MESSAGE.size))
        if command in {FLUSH, CLOSE}:
            daemon.sendall(pages.end(command))
            return
        if command != GET:
            raise AgentError(f"CRIU's daemon asks for {command:#x}")
        daemon.sendall(MESSAGE.pack(ADD | PRESENT << COMMAND_BITS, count, address, image))
        for piece in pages.bring(image, address, count):
            daemon.sendall(piece)


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
    """A pager that waits for its word. `port` is where it listens on this host's loopback.

    `directory` is the migration's, `images` the last dump's, `work` that of CRIU's restore.
    """

    def __init__(self, directory: Path, images: Path, work: Path) -> None:
        self._log = directory / "pager.log"
        self._process = subprocess.Popen(
            # By the directory `criu.workers` finds out later whose it is.
            [sys.executable, sys.argv[0], "pager", str(directory), str(images), str(work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("wb"),
            start_new_session=True,
        )
        assert self._process.stdout  # noqa: S101 - it was asked for
        self.port = int(json.loads(self._process.stdout.readline())["port"])

    def begin(self, daemon_work: Path, source: tuple[str, int] | None, *, rounds: bool) -> None:
        """Tell it where CRIU's daemon works, and have it bring what the images leave out, if they do.

        It comes from a source, or from the `rounds` before them.
        """
        self._say({"daemon": str(daemon_work), "source": source, "rounds": rounds})

    def read_ahead(self) -> None:
        """Tell it that the images of all rounds but the last dump are there."""
        with contextlib.suppress(BrokenPipeError):  # `complaint` says why
            self._say({"read": "ahead"})

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


class Commit:
    """Waits for the word that the container has been committed to this host, which an agent's end is as well.

    An agent that dies before anybody `depends` on this program takes it along: the source waits for its end.
    """

    def __init__(self, orders: Iterator[dict[str, Any]]) -> None:
        self._orders = orders
        self._calm = threading.Event()
        self._depends = threading.Event()
        self.depend, self.wait = self._depends.set, self._calm.wait
        threading.Thread(target=self._await_word, daemon=True).start()

    def _await_word(self) -> None:
        if next(self._orders, None) is None and not self._depends.is_set():
            os._exit(1)
        time.sleep(GENTLE_S)
        self._calm.set()


def main(controller: Controller) -> None:
    """Say where it listens, read ahead if told, take one order, keep the door, serve one daemon.

    What follows is in `Commit`.
    """
    spare(os.getpid())
    images, work = map(Path, sys.argv[3:5])
    listener, door, rounds = listen(LOOPBACK), Door(work), Rounds(images)
    controller.tell(port=listener.getsockname()[1])
    orders = controller.orders()
    order: dict[str, Any] | None = next(orders, None)
    while order is not None and "read" in order:
        rounds.read_ahead()
        order = next(orders, None)
    if order is None:
        return
    commit = Commit(orders)
    try:
        source = order["source"]
        pages = Pager(images, tuple(source)) if source else rounds if order["rounds"] else None
        keeper = threading.Thread(target=_keep, args=(door, Path(order["daemon"]), commit), daemon=True)
        keeper.start()
        if pages is None:
            keeper.join()
            return
        daemon, _ = listener.accept()
        daemon.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        commit.depend()
        if isinstance(pages, Pager):
            threading.Thread(target=_fetch_all_in_time, args=(pages, commit), daemon=True).start()
        serve(daemon, pages)
    except (OSError, AgentError, KeyError, ValueError) as lost:
        sys.stderr.write(f"{lost}\n")
        os._exit(1)  # the daemon sees its connection end


def _fetch_all_in_time(pager: Pager, commit: Commit) -> None:
    commit.wait()
    pager.fetch_all()


def _keep(door: Door, daemon_work: Path, commit: Commit) -> None:
    try:
        door.pass_on(daemon_work, commit.depend, commit.wait)
    except OSError as lost:
        sys.stderr.write(f"CRIU's restore and its daemon for pages can't talk: {lost}\n")
