"""Memory that follows: a restored process runs, and gets its pages as it needs them, and then all the others.

A program of its own, in the place of CRIU's daemon for pages. It is started before the freeze, and outlives the agent,
since without it memory would never be complete. CRIU hands it each process's userfaultfd (`lazy_socket`). It answers
page faults from what a dump at the source has, or images that are here (`supply`), and puts the rest in by itself.

What is needed goes first, with its neighbours. From a source small mappings are fetched before a process runs (stacks,
data of programs, a heap's own records): a process that has just been restored needs hundreds of their pages, and would
wait for the way there and back with each. All the rest follows once the container has found its feet.

CRIU's own daemon (4.2, uffd.c) fetches up to 4 MiB at a time, while faults wait, and takes a whole processor to wait
for them; it can't bring what lies in the images of earlier rounds (pagemap.c, read_parent_page, never says that it is
complete); and who waited for a page that the kernel did not take (EAGAIN) it forgets.
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
from .lazy_socket import LazyPagesSocket
from .missing import Missing
from .rounds import Rounds
from .supply import Local, Pages, Remote
from .userfault import FAULT, FORK, REMAP, REMOVE, UNMAP, Changing, Ended, Userfault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..wire import Controller

SMALL_PAGES = 256
"""Larger mappings wait until the container has been committed: before, fetching would take time from its restore."""

GENTLE_S = 0.3
"""So long after the commit only what is asked for is brought: what runs again needs a few pages of large mappings
first, and each would wait for what is on its way already."""

CHANGE_S = 0.0001
"""A process that changes its mappings gets so long to come to where the kernel tells of it."""

SPARED = "-1000"
"""The kernel's out-of-memory killer leaves such a process alone (proc(5), oom_score_adj)."""


@dataclass(eq=False)
class Block:
    """Some pages of one process, in a row, as they were in the dump. `asked`: they are on their way."""

    process: int
    address: int
    pages: int
    asked: bool = False


class Mapping:
    """Pages of one process, in a row, that the images leave out. Its blocks are made when they are needed."""

    def __init__(self, process: int, address: int, pages: int, block_pages: int) -> None:
        self.process = process
        self.address = address
        self.pages = pages
        self._block_pages = block_pages
        self._blocks: list[Block | None] = [None] * -(-pages // block_pages)

    @property
    def end(self) -> int:
        """Before this address it ends."""
        return self.address + self.pages * PAGE_BYTES

    def __iter__(self) -> Iterator[Block]:
        return (self._block(number) for number in range(len(self._blocks)))

    def block(self, address: int) -> Block:
        """The block that an address is in."""
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
    """One restored process's. A child that it has forked since has the same number, since its pages were the same."""

    process: int
    faults: Userfault
    missing: Missing


class Pager:
    """Brings all of it: what a restore hands over (`handover`) lacks, from a `supply`."""

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
        self._restored = self._calm = False

    def serve(self) -> None:
        """Return when all memory is in, not before the commit. AgentError if the restore or the source was lost.

        Until then the agent holds the userfaultfds as well, and who touches a page that never was waits for an answer.
        The controller is told when all was `restored`, and how many memories that are; later by which descriptor there
        is another one, of a child that was `forked`.
        """
        self._selector.register(self._handover, selectors.EVENT_READ, self._open_handover)
        self._selector.register(self._commit, selectors.EVENT_READ, self._grow_calm)
        self._selector.register(self._supply, selectors.EVENT_READ, self._take)
        while not (self._restored and self._calm) or any(memory.missing for memory in self._memories):
            while self._faults:
                self._bring(*self._faults.popleft())
            self._ask()
            for key, _ in self._selector.select():
                if key.fd in self._selector.get_map():  # one that was not done away with a moment ago
                    key.data()
        self._supply.end()
        while self._memories:
            self._drop(self._memories[0])

    def _open_handover(self) -> None:
        """The restore has come, or has something to hand over."""
        if not self._handover.came:
            self._selector.unregister(self._handover)
            self._handover.accept()
            self._selector.register(self._handover, selectors.EVENT_READ, self._open_handover)
            self._commit.depend()
        elif (handed := self._handover.take()) is not None:
            ranges = ((one.address, one.end) for one in self._by_address if one.process == handed.process)
            self._add(Memory(handed.process, Userfault(handed.descriptor), Missing(ranges)))
        else:
            self._selector.unregister(self._handover)
            self._handover.close()
            self._all_restored()
            self._controller.tell(restored=len(self._memories))

    def _grow_calm(self) -> None:
        self._selector.unregister(self._commit)
        self._calm = True

    def _add(self, memory: Memory) -> None:
        self._memories.append(memory)
        self._selector.register(memory.faults, selectors.EVENT_READ, lambda: self._hear(memory))

    def _drop(self, memory: Memory) -> None:
        """Its process has ended, or lacks nothing any more."""
        self._memories.remove(memory)
        self._selector.unregister(memory.faults)
        memory.missing.clear()
        memory.faults.close()

    def _all_restored(self) -> None:
        """What came before a process had its mappings finds its place now."""
        self._restored = True
        held, self._held = self._held, {}
        for pages in chain.from_iterable(held.values()):
            self._put(pages)

    def _ask(self) -> None:
        while self._supply.outstanding < self._supply.window and (block := self._choose()) is not None:
            block.asked = True
            self._supply.ask(block.process, block.address, block.pages)

    def _choose(self) -> Block | None:
        """What is to be asked for now, if anything."""
        while self._urgent:
            if not (block := self._urgent.popleft()).asked:
                return block
        ahead = [self._ahead] if self._calm or self._supply.is_far else []
        blocks = chain(*ahead, self._behind if self._calm else ())
        return next((block for block in blocks if not block.asked and self._is_missing(block)), None)

    def _is_missing(self, block: Block) -> bool:
        """Whether a process lacks some of it, or may: one that has not been handed over yet lacks it all."""
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
        """Put them into every memory that lacks them, a child's too of which is heard only while this goes on."""
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
                            break  # it has no mapping there yet
                        if at < end:
                            at += PAGE_BYTES  # nor will it have one again
                    memory.missing.remove(start, at)
            except Changing:
                self._let_change(memory)
            except Ended:
                self._drop(memory)
                return
            else:
                return

    def _hear(self, memory: Memory) -> None:
        """What its process has done to its mappings, and which pages it needs: those come afterwards."""
        for what, first, second, third in memory.faults.told() if memory in self._memories else ():
            if what == FAULT:
                self._faults.append((memory, second & ~(PAGE_BYTES - 1)))
            elif what == FORK:
                child = Userfault(first & 0xFFFFFFFF)
                self._controller.tell(forked=child.fileno())  # for the agent to hold as well
                self._add(Memory(memory.process, child, memory.missing.copy()))
            elif what == REMAP:
                memory.missing.move(first, second, third)
            elif what in {REMOVE, UNMAP}:
                memory.missing.remove(first, second)

    def _let_change(self, memory: Memory) -> None:
        """Its process changes its mappings: hear of it, and let it come to that if there is nothing to hear yet."""
        time.sleep(CHANGE_S)
        self._hear(memory)

    def _bring(self, memory: Memory, address: int) -> None:
        """The page that a process waits for."""
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
        """A page that the process had not: it reads zeroes there, or what has been put there a moment ago.

        False if that is to be looked at again.
        """
        try:
            memory.faults.put_zero(address)
        except Changing:
            self._let_change(memory)
            return False
        except Ended:
            self._drop(memory)
        return True


def _joined(ranges: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Ranges that go on where the one before ends are one with it: a dump cuts where it takes another pipe.

    What is left of a large mapping behind its last cut is no small one: a GB has hundreds of pages in such pieces.
    """
    joined: list[tuple[int, int, int]] = []
    for process, address, pages in ranges:
        if joined and (process, address) == (joined[-1][0], joined[-1][1] + joined[-1][2] * PAGE_BYTES):
            joined[-1] = process, joined[-1][1], joined[-1][2] + pages
        else:
            joined.append((process, address, pages))
    return joined


class Commit:
    """The word that the container has been committed to this host, which an agent's end is as well.

    An agent that dies before anybody `depends` on this program takes it along: the source waits for its end.
    """

    def __init__(self, orders: Iterator[dict[str, Any]]) -> None:
        self._orders = orders
        self._calm, self._mark = os.pipe()  # `os.eventfd` came with Python 3.10
        self._depends = threading.Event()
        self.depend = self._depends.set
        threading.Thread(target=self._await_word, daemon=True).start()

    def fileno(self) -> int:
        """For a selector: readable once the container has found its feet."""
        return self._calm

    def _await_word(self) -> None:
        if next(self._orders, None) is None and not self._depends.is_set():
            os._exit(1)
        time.sleep(GENTLE_S)
        os.write(self._mark, b"1")


def spare(pid: int) -> None:
    """Keep the kernel's out-of-memory killer from a process, if this one may."""
    with contextlib.suppress(OSError):  # without CAP_SYS_RESOURCE
        Path(f"/proc/{pid}/oom_score_adj").write_text(SPARED)


def _connection(post: int) -> socket.socket:
    """The connection that the agent hands over by the socket that it has left open here."""
    with socket.socket(fileno=post) as agent:
        _, (descriptor, *_), _, _ = socket.recv_fds(agent, 1, 1)
    return socket.socket(fileno=descriptor)


def main(controller: Controller) -> None:
    """Say that it listens, read ahead if told, take one order, bring all memory."""
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
        os._exit(1)
