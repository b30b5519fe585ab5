"""The memory that a restored process still lacks, while it moves, unmaps and copies its mappings."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Range(NamedTuple):
    """Addresses from `start` to before `end`.

    `origin` is where `start` was in the dump: the process may have moved it.
    """

    start: int
    end: int
    origin: int


class Missing:
    """Ranges of a process's addresses, in order. No two of them have a page in common.

    All numbers are bytes, in whole pages.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        """`ranges` are pairs of a first address and the address after the last, as in the dump."""
        self._ranges = [Range(start, end, start) for start, end in sorted(ranges)]
        self._starts = [found.start for found in self._ranges]
        self._moved = False

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def copy(self) -> Missing:
        """A copy, for a child of the process."""
        made = Missing(())
        made._ranges, made._starts, made._moved = [*self._ranges], [*self._starts], self._moved
        return made

    def clear(self) -> None:
        """Forget all ranges, since none is needed any more."""
        self._ranges, self._starts = [], []

    def origin(self, address: int) -> int | None:
        """Where the byte at an address was in the dump; None if it is not missing."""
        position = bisect_right(self._starts, address) - 1
        if position < 0 or address >= self._ranges[position].end:
            return None
        found = self._ranges[position]
        return found.origin + address - found.start

    def wanted(self, origin: int, size: int) -> list[Range]:
        """Where the process now lacks what was at these addresses in the dump."""
        last = origin + size
        found = []
        for one in self._ranges if self._moved else self._ranges[self._around(origin, last)]:
            begin, end = max(one.origin, origin), min(one.origin + one.end - one.start, last)
            if begin < end:
                shift = one.start - one.origin
                found.append(Range(begin + shift, end + shift, begin))
        return found

    def _around(self, start: int, end: int) -> slice:
        """The ranges that may have some of these addresses."""
        return slice(max(0, bisect_right(self._starts, start) - 1), bisect_left(self._starts, end))

    def remove(self, start: int, end: int) -> list[Range]:
        """Remove these addresses. Returns what was missing of them."""
        around = self._around(start, end)
        kept, removed = [], []
        for one in self._ranges[around]:
            begin, stop = max(one.start, start), min(one.end, end)
            if begin >= stop:
                kept.append(one)
                continue
            removed.append(Range(begin, stop, one.origin + begin - one.start))
            if one.start < begin:
                kept.append(Range(one.start, begin, one.origin))
            if stop < one.end:
                kept.append(Range(stop, one.end, one.origin + stop - one.start))
        self._ranges[around] = kept
        self._starts[around] = [one.start for one in kept]
        return removed

    def move(self, start: int, to: int, size: int) -> None:
        """The process has moved a mapping with its missing pages. What was at the new place before is gone."""
        moving = self.remove(start, start + size)
        self.remove(to, to + size)
        if not moving:
            return
        self._moved = True
        shift = to - start
        position = bisect_left(self._starts, to)
        moved = [Range(one.start + shift, one.end + shift, one.origin) for one in moving]
        self._ranges[position:position] = moved
        self._starts[position:position] = [one.start for one in moved]
