"""All hosts of a testbed watched at once."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.script import Script
from benchmarks.testbed import DESTINATION, GATEWAY, SOURCE
from sealift_agent.constants import INTERFACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.testbed import Testbed

WATCHED = (SOURCE, DESTINATION, GATEWAY)
PERIOD_S = 0.2


@dataclass
class Watched:
    """What the hosts have said, by name; empty until the block is left."""

    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def cpu_s(self, host: str) -> float:
        """Processor time that the host's processes took."""
        return float(self.hosts[host]["cpu_s"])

    def peak_bytes(self, host: str) -> int:
        """Most memory above that of the beginning."""
        return int(self.hosts[host]["peak_bytes"])

    def sent_bytes(self, host: str, *, tunnel: bool) -> int:
        """Bytes that left a host by the tunnel, or by everything that is not the tunnel or local."""
        return sum(
            numbers[2]
            for name, numbers in self.hosts[host]["interfaces"].items()
            if (name == INTERFACE if tunnel else _is_uplink(name))
        )


@contextmanager
def watching(testbed: Testbed) -> Iterator[Watched]:
    """Watch for the length of the block."""
    found = Watched()
    with ExitStack() as stack:
        scripts = {
            host: stack.enter_context(
                Script(testbed[host], "benchmarks.measure", "host_watch.py", str(PERIOD_S))
            )
            for host in WATCHED
        }
        yield found
        found.hosts = {host: script.end() for host, script in scripts.items()}


def _is_uplink(name: str) -> bool:
    return name not in {"lo", INTERFACE} and not name.startswith(
        ("br-", "docker", "veth", "sealift", "bench")
    )
