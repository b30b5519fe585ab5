"""What a freeze costs besides pages, by what the container consists of.

A migration between two hosts tells how fast they are (`history`). What it costs to freeze one container says little of
another: one with 500 processes takes seconds, one with a single process a tenth of one. So the costs of each kind are
fixed figures, and what is learned is one factor for both hosts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealift_agent.protocol import Uses

BASE_MS = 120.0
"""One process with a few descriptors: a post-copy of a Redis in the netns lab on 2 cores."""

PROCESS_MS, THREAD_MS, SOCKET_MS, DESCRIPTOR_MS, MAPPING_MS = 11.0, 1.0, 0.15, 0.02, 0.035
"""Each one more. Measured in such a lab, at d333b88: 2,000 threads 2 s, 60,000 mappings 2.1 s. Processes: 100 of
`sleep` took 1.34 s on 2026-12-01, the median of six, with other labs at work; 0.2 s of it are no process's.

Those of sockets and descriptors are estimates.
"""

BYTES_S = 200e6
"""Of what CRIU copies in the freeze: 500 MB each in a tmpfs and in /dev/shm took 5.1 s, 900 MB without a name 4.2 s."""


def floor_ms(uses: Uses) -> float:
    """Milliseconds of a freeze that sends no pages of memory, on the machine that the figures are of."""
    copied = uses.tmpfs_bytes + sum(uses.unlinked.values())
    return (
        BASE_MS
        + PROCESS_MS * max(0, uses.processes - 1)
        + THREAD_MS * max(0, uses.threads - uses.processes)
        + SOCKET_MS * uses.sockets
        + DESCRIPTOR_MS * uses.opened
        + MAPPING_MS * uses.areas
        + 1000 * copied / BYTES_S
    )
