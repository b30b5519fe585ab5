"""The hosts' links held to a rate, and delayed: by the kernel's own traffic control, for the length of a block."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.testbed import DESTINATION, SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.testbed import Testbed

DEVICE = """
set -- "$(ip -o route get "$1" | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p')" "$2" "$3"
"""
SHAPE = (
    DEVICE
    + """
tc qdisc del dev "$1" root 2>/dev/null || true
if [ -n "$3" ]; then
	tc qdisc add dev "$1" root handle 1: netem delay "$3" limit 100000
	[ -z "$2" ] || tc qdisc add dev "$1" parent 1: handle 2: tbf rate "$2" burst 256kb latency 100ms
elif [ -n "$2" ]; then
	tc qdisc add dev "$1" root tbf rate "$2" burst 256kb latency 100ms
fi
"""
)


@contextmanager
def shaped(testbed: Testbed, rate_mbit_s: float | None, latency_ms: float | None) -> Iterator[None]:
    """Hold both hosts' links to a rate, each way, and delay what the source sends.

    CommandFailed where the kernel has no netem (this repository's netns lab on some kernels).
    """
    if rate_mbit_s is None and latency_ms is None:
        yield
        return
    ways = {SOURCE: DESTINATION, DESTINATION: SOURCE}
    rate = f"{rate_mbit_s:g}mbit" if rate_mbit_s else ""
    try:
        for host, other in ways.items():
            delay = f"{latency_ms:g}ms" if latency_ms and host == SOURCE else ""
            testbed.sh(host, SHAPE, testbed.inventory.host(other).address, rate, delay)
        yield
    finally:
        for host, other in ways.items():
            testbed.sh(host, SHAPE, testbed.inventory.host(other).address, "", "")
