"""A workload as data: whoever runs containers can run it, and its client watches it wherever it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.workloads.client import Client
    from sealift.host.ssh import Connection
    from sealift.lab.images import Image

READY_TIMEOUT_S = 300


@dataclass(frozen=True)
class Workload:
    """What runs in the container, and who watches it."""

    name: str
    image: Image
    command: Sequence[str]
    watch: Callable[[Connection, str, str], Client]
    """Given the client's host, the workload's address and what `ready` printed."""

    ready: Sequence[str]
    """Run in the container once it is started: waits until the workload serves and holds its data."""

    scripts: Mapping[str, bytes] = field(default_factory=dict)
    """Files put into the container before it starts, by name, under SCRIPTS."""

    small_files: int = 0
    volume_mb: float = 0
    """What else it has and does not touch: that many files in its writable layer, so many megabytes in a volume."""


SCRIPTS = "/opt/workload"
SMALL_FILES = "/opt/files"
VOLUME = "/srv/volume"
SMALL_BYTES = 500
FILES_PER_FOLDER = 100


class Runner(Protocol):
    """Something that runs containers on one host: Docker, runc, Podman."""

    def run(self, name: str, address: str, workload: Workload) -> None:
        """Start the workload under an address of the workloads' network."""

    def execute(self, name: str, argv: Sequence[str], timeout_s: float) -> str:
        """Run a command in it; what it printed."""

    def remove(self, name: str) -> None:
        """End it, whatever state it is in; nothing stays."""


def start(runner: Runner, name: str, address: str, workload: Workload) -> str:
    """Start a workload and wait until it is ready. Returns what `ready` printed."""
    runner.run(name, address, workload)
    return runner.execute(name, workload.ready, READY_TIMEOUT_S).strip()
