"""The pager of a post-copy: a restored process runs, and gets the pages that it needs first, and then all others.

It is a program of its own, in the place of CRIU's pager. It is started before the freeze. It outlives the agent, since
memory would stay incomplete without it. CRIU hands each process's userfaultfd over to it (`lazy_socket`). It answers
page faults with pages of a dump at the source, or of images that are here (`supply`), and brings the rest unasked.

Pages that a process waits for come first, with their neighbours. From a source, small mappings (stacks, data of
programs, records of a heap) are fetched before a process runs: a process that was just restored needs hundreds of their
pages, and would wait for a round trip for each. The rest follows some time after the commit.

CRIU's own pager (4.2, uffd.c) fetches up to 4 MiB at a time while faults wait, and uses a whole processor for waiting.
It can't bring pages of earlier rounds' images (pagemap.c, read_parent_page, never says that it is complete). If the
kernel did not take a page (EAGAIN), it forgets the process that waits for it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
import time
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..constants import PAGE_BYTES
from ..images import lazy_ranges
from ..wire import AgentError
from .lazy_socket import RESTORE_ENDED, LazyPagesSocket, RestoreEnded
from .missing import Missing
from .rounds import Rounds
from .supply import Local, Pages, Remote
from .userfault import FAULT, FORK, REMAP, REMOVE, UNMAP, Changing, Ended, Userfault
from .waits import Waits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..wire import Controller

SMALL_PAGES = 256
"""Larger mappings wait for the commit, since fetching them earlier would make the restore slower."""

ON_DEMAND_S = 0.3
"""Seconds after the commit in which only needed pages are brought. A process that runs again needs a few pages of
large mappings first, and each would have to wait for other pages on the way."""

CHANGE_S = 0.0001
"""Seconds that a process which changes its mappings gets, until the kernel can report the change."""

SPARED = "-1000"
"""The kernel's out-of-memory killer does not end such a process (proc(5), oom_score_adj)."""


@dataclass(eq=False)
class Block:
    """Some consecutive pages of one process, as in the dump. `asked`: they have been asked for."""

    process: int
    address: int
    pages: int
    asked: bool = False


class Mapping:
    """Consecutive pages of one process that the images leave out. Its blocks are made when they are needed."""

    def __init__(self, process: int, address: int, pages: int, block_pages: int) -> None:
        self.process = process
        self.address = address
        self.pages = pages
        self._block_pages = block_pages
        self._blocks: list[Block | None] = [None] * -(-pages // block_pages)

    @property
    def end(self) -> int:
        """The address after its last byte."""
        return self.address + self.pages * PAGE_BYTES

    def __iter__(self) -> Iterator[Block]:
        return (self._block(number) for number in range(len(self._blocks)))

    def block(self, address: int) -> Block:
        """The block that has an address."""
        return self._block((address - self.address) // PAGE_BYTES // self._block_pages)

    def _block(self, number: int) -> Block:
        block = self._blocks[number]
        if block is None:
            first = number * self._block_pages
            pages = min(self._block_pages, self.pages - first)
            block = self._blocks[number] = Block(self.process, self.address + first * PAGE_BYTES, pages)
        return block


@dataclass(eq=False)
class Memory:
    """The memory of one restored process.

    A child that it forks has the same number, since their pages were the same.
    """

    process: int
    faults: Userfault
    missing: Missing


class Pager:
    """Brings all memory that the processes of a restore (`handover`) lack, from a `supply`."""

    def __init__(
        self,
        ranges: Iterable[tuple[int, int, int]],
        supply: Remote | Local,
        handover: LazyPagesSocket,
        commit: Commit,
        controller: Controller,
    ) -> None:
        """`ranges` are what the images leave out: process, address, pages."""
        mappings = [Mapping(*found, supply.block_pages) for found in _joined(ranges)]
        self._supply, self._handover, self._commit, self._controller = supply, handover, commit, controller
        self._by_address = sorted(mappings, key=lambda mapping: (mapping.process, mapping.address))
        self._addresses = [(mapping.process, mapping.address) for mapping in self._by_address]
        mappings.sort(key=lambda mapping: mapping.pages)
        self._ahead = chain.from_iterable(mapping for mapping in mappings if mapping.pages <= SMALL_PAGES)
        self._behind = chain.from_iterable(mapping for mapping in mappings if mapping.pages > SMALL_PAGES)
        self._faults: deque[tuple[Memory, int]] = deque()
        self._urgent: deque[Block] = deque()
        self._held: dict[Block, list[Pages]] = {}
        self._memories: list[Memory] = []
        self._selector = selectors.DefaultSelector()
        self._waits = Waits()
        self._brings_all = False

    @property
    def _restored(self) -> bool:
        return self._waits.resumed

    def serve(self) -> None:
        """Return when all memory is in and the commit is done. AgentError if the restore or the source is lost.

        Until then the agent holds the userfaultfds, too, so that a process which touches a missing page waits. The
        controller is told when all is `restored`, with the number of memories. For each child that is `forked` later it
        is told the descriptor of its memory, and in the end how long processes have `waited`.
        """
        self._selector.register(self._handover, selectors.EVENT_READ, self._open_handover)
        self._selector.register(self._commit, selectors.EVENT_READ, self._bring_all)
        self._selector.register(self._supply, selectors.EVENT_READ, self._take)
        while not (self._restored and self._brings_all) or any(memory.missing for memory in self._memories):
            while self._faults:
                self._bring(*self._faults.popleft())
            self._ask()
            for key, _ in self._selector.select():
                if key.fd in self._selector.get_map():  # it may have been unregistered just now
                    key.data()
        self._supply.end()
        while self._memories:
            self._drop(self._memories[0])
        self._controller.tell(waited=self._waits.told())

    def _open_handover(self) -> None:
        """The restore has connected, or hands something over."""
        if not self._handover.came:
            self._selector.unregister(self._handover)
            self._handover.accept()
            self._selector.register(self._handover, selectors.EVENT_READ, self._open_handover)
            self._commit.depend()
        elif (handed := self._handover.take()) is not None:
            ranges = ((one.address, one.end) for one in self._by_address if one.process == handed.process)
            self._add(Memory(handed.process, Userfault(handed.descriptor), Missing(ranges)))
        elif self._handover.finished:
            self._selector.unregister(self._handover)
            self._handover.close()
            self._all_restored()
            self._controller.tell(restored=len(self._memories))

    def _bring_all(self) -> None:
        self._selector.unregister(self._commit)
        self._brings_all = True

    def _add(self, memory: Memory) -> None:
        self._memories.append(memory)
        self._selector.register(memory.faults, selectors.EVENT_READ, lambda: self._hear(memory))

    def _drop(self, memory: Memory) -> None:
        """Forget the memory of a process that has ended or lacks nothing."""
        self._memories.remove(memory)
        self._selector.unregister(memory.faults)
        memory.missing.clear()
        self._waits.settle(memory, memory.missing)
        memory.faults.close()

    def _all_restored(self) -> None:
        """Put in what came before the processes had their mappings."""
        self._waits.resume()
        held, self._held = self._held, {}
        for pages in chain.from_iterable(held.values()):
            self._put(pages)

    def _ask(self) -> None:
        while self._supply.outstanding < self._supply.window and (block := self._choose()) is not None:
            block.asked = True
            self._supply.ask(block.process, block.address, block.pages)

    def _choose(self) -> Block | None:
        """The block that is to be asked for now, if any."""
        while self._urgent:
            if not (block := self._urgent.popleft()).asked:
                return block
        ahead = [self._ahead] if self._brings_all or self._supply.is_far else []
        blocks = chain(*ahead, self._behind if self._brings_all else ())
        return next((block for block in blocks if not block.asked and self._is_missing(block)), None)

    def _is_missing(self, block: Block) -> bool:
        """Whether a process lacks a part of it. One that has not been handed over yet lacks all of it."""
        if block in self._held:
            return False
        those = list(self._those(block.process))
        size = block.pages * PAGE_BYTES
        lacks = any(memory.missing.wanted(block.address, size) for memory in those)
        return lacks or not (those or self._restored)

    def _block(self, process: int, address: int) -> Block:
        position = bisect_right(self._addresses, (process, address)) - 1
        return self._by_address[position].block(address)

    def _take(self) -> None:
        pages = self._supply.take()
        block = self._block(pages.process, pages.address)
        last = pages.address + len(pages.data) == block.address + block.pages * PAGE_BYTES
        block.asked = block.asked and not last
        if not self._restored:
            self._held.setdefault(block, []).append(pages)
        self._put(pages)

    def _put(self, pages: Pages) -> None:
        """Put them into every memory that lacks them, also of children that are reported only during this."""
        filled: set[Memory] = set()
        while memory := next((one for one in self._those(pages.process) if one not in filled), None):
            filled.add(memory)
            self._fill(memory, pages)

    def _those(self, process: int) -> Iterator[Memory]:
        return (memory for memory in self._memories if memory.process == process)

    def _fill(self, memory: Memory, pages: Pages) -> None:
        """Put in what a process lacks of these pages."""
        while True:
            try:
                for start, end, origin in memory.missing.wanted(pages.address, len(pages.data)):
                    at = start
                    while at < end:
                        offset = origin + at - start - pages.address
                        at += memory.faults.put(at, pages.data, offset, end - at)
                        if at < end and not self._restored:
                            break  # its mapping is not there yet
                        if at < end:
                            at += PAGE_BYTES  # its mapping is gone
                    memory.missing.remove(start, at)
            except Changing:
                self._let_change(memory)
            except Ended:
                self._drop(memory)
                return
            else:
                self._waits.settle(memory, memory.missing)
                return

    def _hear(self, memory: Memory) -> None:
        """Read what its process has done to its mappings, and which pages it waits for. They are brought afterwards."""
        for what, first, second, third in memory.faults.told() if memory in self._memories else ():
            if what == FAULT:
                self._faults.append((memory, second & ~(PAGE_BYTES - 1)))
                self._waits.begin(memory, second & ~(PAGE_BYTES - 1))
            elif what == FORK:
                child = Userfault(first & 0xFFFFFFFF)
                self._controller.tell(forked=child.fileno())  # the agent holds it, too
                self._add(Memory(memory.process, child, memory.missing.copy()))
            elif what == REMAP:
                memory.missing.move(first, second, third)
            elif what in {REMOVE, UNMAP}:
                memory.missing.remove(first, second)

    def _let_change(self, memory: Memory) -> None:
        """Its process changes its mappings. Give it some time, and read what the kernel reports."""
        time.sleep(CHANGE_S)
        self._hear(memory)

    def _bring(self, memory: Memory, address: int) -> None:
        """Bring the page that a process waits for."""
        while memory in self._memories and (origin := memory.missing.origin(address)) is None:
            if self._clear(memory, address):
                return
        if memory not in self._memories or origin is None:
            return
        block = self._block(memory.process, origin)
        for pages in self._held.get(block, ()):
            self._fill(memory, pages)
        if not block.asked and memory.missing.origin(address) is not None:
            self._urgent.append(block)

    def _clear(self, memory: Memory, address: int) -> bool:
        """Put zeroes where the process had no page, unless a page has been put there just now.

        Returns False if the caller has to check again.
        """
        try:
            memory.faults.put_zero(address)
        except Changing:
            self._let_change(memory)
            return False
        except Ended:
            self._drop(memory)
        self._waits.end(memory, address)
        return True


def _joined(ranges: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Join ranges that continue each other, since a dump begins a new range for each pipe.

    Otherwise the end of a large mapping would count as a small one. A GB has hundreds of pages in such ends.
    """
    joined: list[tuple[int, int, int]] = []
    for process, address, pages in ranges:
        if joined and (process, address) == (joined[-1][0], joined[-1][1] + joined[-1][2] * PAGE_BYTES):
            joined[-1] = process, joined[-1][1], joined[-1][2] + pages
        else:
            joined.append((process, address, pages))
    return joined


class Commit:
    """The message that the container has been committed to this host. The agent's end means the same.

    If the agent dies before a process depends on this program (`depend`), this program ends, too: the source waits for
    that.
    """

    def __init__(self, orders: Iterator[dict[str, Any]]) -> None:
        self._orders = orders
        self._due, self._mark = os.pipe()  # `os.eventfd` came with Python 3.10
        self._depends = threading.Event()
        self.depend = self._depends.set
        threading.Thread(target=self._await_word, daemon=True).start()

    def fileno(self) -> int:
        """For a selector: readable when all memory may be brought."""
        return self._due

    def _await_word(self) -> None:
        if next(self._orders, None) is None and not self._depends.is_set():
            os._exit(1)
        time.sleep(ON_DEMAND_S)
        os.write(self._mark, b"1")


def spare(pid: int) -> None:
    """Protect a process from the kernel's out-of-memory killer, if this process may."""
    with contextlib.suppress(OSError):  # without CAP_SYS_RESOURCE
        Path(f"/proc/{pid}/oom_score_adj").write_text(SPARED)


def _connection(post: int) -> socket.socket:
    """The connection that the agent sends over the socket `post`."""
    with socket.socket(fileno=post) as agent:
        _, (descriptor, *_), _, _ = socket.recv_fds(agent, 1, 1)
    return socket.socket(fileno=descriptor)


def main(controller: Controller) -> None:
    """Say that it listens, read images ahead if told to, take one order, and bring all memory."""
    spare(os.getpid())
    images, work = map(Path, sys.argv[3:5])
    handover, rounds = LazyPagesSocket(work), Rounds(images)
    controller.tell(listens=True)
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
        supply = Remote(_connection(int(sys.argv[5]))) if source else Local(rounds)
        ranges = lazy_ranges(images) if source else rounds.lazy_ranges()
        Pager(ranges, supply, handover, commit, controller).serve()
    except (OSError, AgentError, KeyError, ValueError) as lost:
        sys.stderr.write(f"{lost}\n")
        sys.stderr.flush()
        os._exit(RESTORE_ENDED if isinstance(lost, RestoreEnded) else 1)
