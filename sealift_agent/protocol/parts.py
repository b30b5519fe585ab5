"""What orders and answers are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Endpoint:
    """Where one connection is expected, and the token by which it is admitted."""

    address: str
    port: int
    token: str


@dataclass(frozen=True)
class Peer:
    """Where the destination of a migration expects the source. `password` is that of its rsync daemon."""

    address: str
    port: int
    token: str
    password: str
    rsync_port: int


@dataclass(frozen=True)
class Decider:
    """Where the gateway decides about one migration. `key`: what proves questions and answers, hexadecimal.

    `group`: whether several migrations are decided together.
    """

    address: str
    port: int
    token: str
    key: str
    group: bool


@dataclass(frozen=True)
class Move:
    """What a decision moves: an address of a workload, from the peer `origin` to `peer` (WireGuard keys) on `host`."""

    migration: str
    address: str
    origin: str
    peer: str
    host: str


@dataclass(frozen=True)
class LogPlace:
    """The log that Docker keeps of the container at the destination, and how many bytes of it count."""

    path: str
    marked: int


@dataclass(frozen=True)
class LogSent:
    """How much of the log is at the destination, and how many bytes were sent for it."""

    marked: int
    sent: int


@dataclass(frozen=True)
class Dumped:
    """One round of pre-dump: CRIU's statistics (`images.dump_stats`), and the bytes that were sent, compressed if so.

    `whole` says why writes to huge pages count for all of them, if they do.
    """

    statistics: dict[str, int]
    packed_bytes: int
    whole: Optional[str]


@dataclass(frozen=True)
class Armed:
    """`external_network`: whether a filled network namespace is ready, so that the images are to have none."""

    external_network: bool


@dataclass(frozen=True)
class Removed:
    """`page_bytes`: how much memory was fetched after the commit."""

    page_bytes: int


@dataclass(frozen=True)
class Finished:
    """What Docker says of the container at the destination."""

    status: str
    pid: int
    health: Optional[str]


@dataclass(frozen=True)
class VolumeFound:
    """A volume as a host has it. `content`: empty, left, taken, here or other; see `volume_marks`."""

    driver: str
    options: dict[str, str]
    content: str
    lineage: Optional[str]
