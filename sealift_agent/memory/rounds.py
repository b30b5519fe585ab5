"""Memory that was sent in rounds before the freeze: it is left out of a restore, and brought when a process needs it.

CRIU marks only pages of the last dump as lazy (4.2, page-xfer.c, page_xfer_dump_hole). It would read the pages of
earlier rounds, which are nearly all memory, before a process could run: for 512 MB this took 7 s of a freeze under
emulation. So the last pagemap is changed: it says that these pages are in no image, as a post-copy's pagemap does. The
pager then brings them from the images here.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from ..constants import PAGE_BYTES
from ..images import LAZY, PARENT, PRESENT, messages, pagemaps, pages_file, runs
from ..protobuf import fields
from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EARLIER = "parent"
"""The link in a dump's directory that leads to the round before it (criu/include/image.h)."""

PRIVATE, ANONYMOUS, LOCKED, HUGETLB = 0x2, 0x20, 0x2000, 0x40000
"""Flags of mmap(2), as in images."""

PLAIN = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 9
"""Statuses of ordinary private memory: VMA_AREA_REGULAR, _STACK, _HEAP, VMA_ANON_PRIVATE (criu/include/image.h)."""


def leave_out(images: Path) -> bool:
    """Have pages of earlier rounds left out of the restore of these images. Returns whether there are any.

    This is done only in mappings whose pages CRIU lets userfaultfd bring (vma_entry_can_be_lazy). In other mappings,
    pages that were not read would be zeroes. An entry that is not wholly in such mappings stays unchanged.
    """
    left_out = False
    for image, path in pagemaps(images) if (images / EARLIER).exists() else ():
        ranges = list(_bringable(images / f"mm-{image}.img"))
        firsts = [first for first, _ in ranges]
        content = path.read_bytes()
        pagemap = bytearray(content)
        for address, pages, flags, flags_at in runs(content):
            if flags != PARENT or (position := bisect_right(firsts, address)) == 0:
                continue
            if address + pages * PAGE_BYTES <= ranges[position - 1][1]:
                pagemap[flags_at] = LAZY
                left_out = True
        path.write_bytes(pagemap)
    return left_out


def _bringable(image: Path) -> Iterator[tuple[int, int]]:
    """Where userfaultfd may bring pages, in order. Adjacent mappings are joined (images/mm.proto)."""
    start = end = 0
    for number, value in (pair for message in messages(image) for pair in fields(message)):
        if number != 14 or not isinstance(value, bytes):
            continue
        mapping = {key: int(found) for key, found in fields(value) if isinstance(found, int)}
        flags, status = mapping[6], mapping[7]
        wanted = flags & PRIVATE and flags & ANONYMOUS and not flags & (LOCKED | HUGETLB)
        if not wanted or status & ~PLAIN:
            continue
        if mapping[1] != end:
            if end:
                yield start, end
            start = mapping[1]
        end = mapping[2]
    if end:
        yield start, end


class Entry(NamedTuple):
    """Consecutive pages: the first one's address, their number, and its offset in the file (None if not there)."""

    address: int
    pages: int
    offset: int | None


class Layer:
    """The pages of one process in one round."""

    def __init__(self, images: Path, image: int) -> None:
        self.entries: list[Entry] = []
        self.lazy: list[tuple[int, int]] = []
        self.file, offset = -1, 0
        path = images / f"pagemap-{image}.img"
        if path.exists():
            pagemap = path.read_bytes()
            self.file = os.open(images / f"pages-{pages_file(pagemap)}.img", os.O_RDONLY)
            for address, pages, flags, _ in runs(pagemap):
                here = flags & PRESENT
                self.entries.append(Entry(address, pages, offset if here else None))
                if flags & LAZY:
                    self.lazy.append((address, pages))
                offset += pages * PAGE_BYTES if here else 0
        self._addresses = [entry.address for entry in self.entries]

    def find(self, address: int) -> Entry | None:
        """The entry that has an address."""
        position = bisect_right(self._addresses, address) - 1
        if position < 0:
            return None
        entry = self.entries[position]
        return entry if address < entry.address + entry.pages * PAGE_BYTES else None


class Rounds:
    """The pages of a dump and of the rounds before it. For each page the newest counts."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._read: dict[tuple[Path, int], Layer] = {}
        self._layers: dict[int, list[Layer]] = {}

    def read_ahead(self) -> None:
        """Read the earlier rounds' pagemaps, before the dump is there."""
        for directory in self._directories()[1:]:
            for image, _ in pagemaps(directory):
                self._layer(directory, image)

    def lazy_ranges(self) -> Iterator[tuple[int, int, int]]:
        """Like `images.lazy_ranges`, but the dump's pagemaps are read only once."""
        for image, _ in pagemaps(self._images):
            for address, pages in self._layer(self._images, image).lazy:
                yield image, address, pages

    def _directories(self) -> list[Path]:
        found = [self._images]
        while (found[-1] / EARLIER).exists():
            found.append((found[-1] / EARLIER).resolve())
        return found

    def _layer(self, directory: Path, image: int) -> Layer:
        if (directory, image) not in self._read:
            self._read[directory, image] = Layer(directory, image)
        return self._read[directory, image]

    def read(self, image: int, address: int, pages: int) -> bytearray:
        """Read pages of a process. AgentError for pages that no round has."""
        if image not in self._layers:
            self._layers[image] = [self._layer(directory, image) for directory in self._directories()]
        data = bytearray(pages * PAGE_BYTES)
        view = memoryview(data)
        while view:
            file, offset, count = self._find(image, address, len(view) // PAGE_BYTES)
            if os.preadv(file, [view[: count * PAGE_BYTES]], offset) != count * PAGE_BYTES:
                raise AgentError(f"an image of process {image} ends before its pages do")
            view = view[count * PAGE_BYTES :]
            address += count * PAGE_BYTES
        return data

    def _find(self, image: int, address: int, pages: int) -> tuple[int, int, int]:
        """The file that has the page at this address, the page's offset, and the number of pages from there on."""
        for layer in self._layers[image]:
            entry = layer.find(address)
            if entry is None:
                break
            skipped = address - entry.address
            pages = min(pages, entry.pages - skipped // PAGE_BYTES)
            if entry.offset is not None:
                return layer.file, entry.offset + skipped, pages
        raise AgentError(f"no round has the page at {address:#x} of process {image}")
