"""Which parts of a mapping have memory: a program may reserve terabytes of addresses and use a few megabytes of them.

The kernel says so in one call (PAGEMAP_SCAN of /proc/PID/pagemap, Linux 6.7 and later;
Documentation/admin-guide/mm/pagemap.rst). An earlier kernel would have to be asked page by page: there the whole
mapping counts.
"""

from __future__ import annotations

import array
import errno
import fcntl
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGEMAP_SCAN = 0xC0606610
"""_IOWR('f', 16, struct pm_scan_arg)"""

ARGUMENT = struct.Struct("=12Q")
"""struct pm_scan_arg: size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask,
category_anyof_mask, return_mask."""

WALK_END = 4
PRESENT, SWAPPED = 1 << 3, 1 << 4
REGIONS = 512
REGION_WORDS = 3
"""struct page_region: start, end, categories."""


def ranges(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges of addresses from `start` to `end` that have memory, swapped or not. `pagemap` is a descriptor.

    OSError if the process has ended.
    """
    regions = array.array("Q", bytes(8 * REGION_WORDS * REGIONS))
    while start < end:
        where, _ = regions.buffer_info()
        asked = bytearray(
            ARGUMENT.pack(
                ARGUMENT.size, 0, start, end, 0, where, REGIONS, 0, 0, 0, PRESENT | SWAPPED, PRESENT
            )
        )
        try:
            found = fcntl.ioctl(pagemap, PAGEMAP_SCAN, asked)
        except OSError as refused:
            if refused.errno != errno.ENOTTY:  # the kernel has no such call
                raise
            yield start, end
            return
        for at in range(found):
            yield regions[REGION_WORDS * at], regions[REGION_WORDS * at + 1]
        start = ARGUMENT.unpack(asked)[WALK_END]
