"""Which parts of a mapping have memory is found in one call, however large the mapping is."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from sealift_agent.memory import present

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 1 << 40
PAGE = mmap.PAGESIZE
NO_MEMORY = 0x4000


@pytest.fixture
def pagemap() -> Iterator[int]:
    descriptor = os.open("/proc/self/pagemap", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def reserved() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_MEMORY) as found:
        found.madvise(mmap.MADV_NOHUGEPAGE)
        yield found


def start_of(mapped: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))


def found_in(pagemap: int, mapped: mmap.mmap) -> list[tuple[int, int]]:
    start = start_of(mapped)
    try:
        fcntl.ioctl(pagemap, present.PAGEMAP_SCAN, bytearray(present.ARGUMENT.size))
    except OSError as refused:
        if refused.errno == errno.ENOTTY:
            pytest.skip("this kernel has no PAGEMAP_SCAN")
    return [(begin - start, end - start) for begin, end in present.ranges(pagemap, start, start + SIZE)]


def test_pages_here_and_there(pagemap: int, reserved: mmap.mmap) -> None:
    for place in (0, 5 << 30, (5 << 30) + PAGE, SIZE - PAGE):
        reserved[place] = 1
    expected = [(0, PAGE), (5 << 30, (5 << 30) + 2 * PAGE), (SIZE - PAGE, SIZE)]
    assert found_in(pagemap, reserved) == expected


def test_more_ranges_than_one_call_returns(pagemap: int, reserved: mmap.mmap) -> None:
    places = range(0, 2 * PAGE * (present.REGIONS * 2 + 7), 2 * PAGE)
    for place in places:
        reserved[place] = 1
    assert found_in(pagemap, reserved) == [(place, place + PAGE) for place in places]


def test_nothing_is_there(pagemap: int, reserved: mmap.mmap) -> None:
    assert found_in(pagemap, reserved) == []


def test_a_kernel_without_the_call_has_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> int:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", unknown)
    assert list(present.ranges(3, 0, SIZE)) == [(0, SIZE)]


def test_a_process_that_has_ended_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> int:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(fcntl, "ioctl", gone)
    with pytest.raises(ProcessLookupError):
        list(present.ranges(3, 0, SIZE))
