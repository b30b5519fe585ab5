"""Page faults of one restored process: the kernel reports each, and takes the page from here (userfaultfd(2)).

The kernel also reports what the process does to its mappings. The process goes on only when that has been read, and
until then no page can be put in (EAGAIN). So after all reports have been read, no old page can be put where the process
has made a new mapping.

Numbers are those of linux/userfaultfd.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from ..constants import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

COPY, ZEROPAGE, WAKE = 0xC028AA03, 0xC020AA04, 0x8010AA02
"""_IOWR(0xAA, 3, struct uffdio_copy), _IOWR(0xAA, 4, struct uffdio_zeropage), _IOR(0xAA, 2, struct uffdio_range)."""

FAULT, FORK, REMAP, REMOVE, UNMAP = 0x12, 0x13, 0x14, 0x15, 0x16

MESSAGE = struct.Struct("<B7xQQQ")
AT_ONCE = 16
RANGE = struct.Struct("<QQ")
COPYING = struct.Struct("<QQQQq")
ZEROING = struct.Struct("<QQQq")

GONE = {errno.ESRCH, errno.ENOSPC}
"""The process has ended. Linux before 4.14 reported this by the other number."""

NO_PLACE = {errno.ENOENT, errno.EINVAL}


class Told(NamedTuple):
    """An event, and its three numbers.

    A fault has flags and address. A fork has the descriptor of the child's memory. A move has from, to and length. A
    removal or unmapping has start and end.
    """

    what: int
    first: int
    second: int
    third: int


class Changing(Exception):
    """The process changes its mappings. Nothing can be put in before this has been read."""


class Ended(Exception):
    """The process has no memory any more."""


class Userfault:
    """The memory of one process, by the descriptor with which it is registered."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """For a selector: readable when the kernel has events."""
        return self.descriptor

    def told(self) -> Iterator[Told]:
        """All events that the kernel has now."""
        while True:
            try:
                data = os.read(self.descriptor, AT_ONCE * MESSAGE.size)
            except BlockingIOError:
                return
            for message in MESSAGE.iter_unpack(data):
                yield Told(*message)

    def put(self, address: int, data: bytearray, offset: int, size: int) -> int:
        """Put `size` bytes of `data` in, in whole pages, and wake the threads that wait.

        Returns how many bytes are in.

        It stops before a page that has no place: there is no such mapping, or pages are not brought for it. A page that
        is there already stays. Raises Changing, Ended.
        """
        source = ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data)) + offset
        done = 0
        at_once = size
        while done < size:
            part = min(at_once, size - done)
            order = bytearray(COPYING.pack(address + done, source + done, part, 0, 0))
            try:
                fcntl.ioctl(self.descriptor, COPY, order)
                done += part
            except OSError as refused:
                copied = int(COPYING.unpack(order)[4])
                if copied > 0:
                    done += copied
                elif refused.errno == errno.EEXIST:
                    self.wake(address + done)
                    done += PAGE_BYTES
                elif refused.errno in NO_PLACE and part > PAGE_BYTES:
                    # The pages may lie in two mappings, and the kernel takes only one at a time.
                    at_once = PAGE_BYTES
                elif refused.errno in NO_PLACE:
                    return done
                else:
                    _raise(refused)
        return done

    def put_zero(self, address: int) -> None:
        """Put zeroes at an address where the dump had no page. Raises Changing, Ended."""
        try:
            fcntl.ioctl(self.descriptor, ZEROPAGE, bytearray(ZEROING.pack(address, PAGE_BYTES, 0, 0)))
        except OSError as refused:
            if refused.errno == errno.EEXIST or refused.errno in NO_PLACE:
                self.wake(address)
            else:
                _raise(refused)

    def wake(self, address: int) -> None:
        """Wake the threads that wait for a page. Raises Changing, Ended."""
        try:
            fcntl.ioctl(self.descriptor, WAKE, RANGE.pack(address, PAGE_BYTES))
        except OSError as refused:
            _raise(refused)

    def close(self) -> None:
        """Leave the memory to the kernel: missing pages are zeroes from now on."""
        os.close(self.descriptor)


def _raise(refused: OSError) -> None:
    if refused.errno == errno.EAGAIN:
        raise Changing from refused
    if refused.errno in GONE:
        raise Ended from refused
    raise refused
