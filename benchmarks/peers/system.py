"""What every system under measurement has in common: Sealift, its peers and the floor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.testbed import Testbed
    from benchmarks.workloads.workload import Workload
    from sealift.model import Report


@dataclass(frozen=True)
class Move:
    """How one move went. `facts` are columns of a row (`benchmarks.frames`)."""

    strategy: str
    facts: dict[str, Any] = field(default_factory=dict)
    report: Report | None = None


@dataclass(frozen=True)
class Wish:
    """How Sealift is asked to move; the peers have one way each."""

    strategy: str
    plain: bool
    migrate: Callable[..., Report]


class System(Protocol):
    """Moves one container from the source to the destination of a testbed."""

    def prepare(self, testbed: Testbed, workload: Workload) -> None:
        """Give both hosts what has to be there before anything is measured: image, settings, open ports."""

    def start(self, testbed: Testbed, name: str, address: str, workload: Workload) -> str:
        """Start the workload at the source. Returns what its `ready` printed."""

    def move(self, testbed: Testbed, name: str, address: str, wish: Wish, /) -> Move:
        """Move it, network and all."""

    def clean(self, testbed: Testbed, name: str) -> None:
        """Nothing of the container stays on either host, wherever the move has got to."""


class Absent(Exception):
    """A system can't be measured here. The reason is the row's."""


PRELUDE = """
stamp() { echo "@$1 $(date +%s%N)"; }
complain() {
	[ $? -eq 0 ] || find "${images:-/nowhere}" -name '*.log' -exec grep -h Error {} + 2>/dev/null |
		grep -v RLIMIT_NOFILE | head -1 >&2
}
trap complain EXIT
"""
"""Begins every peer's script: `stamp NAME` prints the time, and a failure ends with CRIU's reason for it."""


def stamps(output: str) -> dict[str, float]:
    """Times of a peer's script, in milliseconds, from its lines `@NAME NANOSECONDS`."""
    found = {}
    for line in output.splitlines():
        if line.startswith("@"):
            name, nanoseconds = line[1:].split()
            found[name] = int(nanoseconds) / 1e6
    return found


def sent_bytes(output: str) -> int:
    """What rsync says (`--stats`) it has sent, in all of a script's runs of it."""
    mark = "Total bytes sent: "
    lines = [line for line in output.splitlines() if line.startswith(mark)]
    return sum(int(line.removeprefix(mark).replace(",", "").replace(".", "")) for line in lines)
