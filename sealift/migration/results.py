"""What each step gives to those after it: one frozen object a step, in the order of the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealift.attestation.record import Record
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory
    from sealift.migration.heard import Heard
    from sealift.model import Choice, Estimate, Round, StepRecord


@dataclass(frozen=True)
class Attested:
    """What the destination has proved. `record` is None without evidence, which was asked for by name then.

    `inventory` has the keys that it has proved; `connection` is bound to them.
    """

    step: StepRecord
    inventory: Inventory
    record: Record | None
    connection: Connection


@dataclass(frozen=True)
class Provisioned:
    """The destination has its keys, and its agents run."""

    step: StepRecord
    inventory: Inventory
    record: Record | None


@dataclass(frozen=True)
class Plan:
    """What moves, and how. `container` is Docker's description of it.

    `left_out`: digests of the image's layers that need not be sent.
    `lazy_restore`: memory is read in behind the restored processes. `streams`: over how many connections pages go.
    `estimated_ns`: when the estimate was made, by time.monotonic_ns.
    """

    container: dict[str, Any]
    address: str
    memory_bytes: int
    image_at_destination: bool
    choice: Choice
    estimate: Estimate | None
    estimated_ns: int
    lazy_restore: bool
    streams: int
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """The preflight, with its result."""

    step: StepRecord
    plan: Plan


@dataclass(frozen=True)
class Log:
    """Where the destination keeps what the container prints, and how many bytes of it are there."""

    path: str
    marked: int


@dataclass(frozen=True)
class Copy:
    """The sync's: the container's counterpart at the destination, with its files as they were.

    `descriptors` are what the container's standard ones lead to. `log` is None where Docker keeps none in files.
    """

    step: StepRecord
    container: str
    descriptors: tuple[str, ...]
    log: Log | None
    image_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Memory:
    """The pre-dump's: the rounds, of which the images of the last are what the next dump builds on.

    `ended_ns`: when the last one ended, by time.monotonic_ns. `throttled_cpus`: what was left to a writer that never
    converged. `packed_bytes`: what the pages of all rounds came to, compressed.
    """

    rounds: tuple[Round, ...] = ()
    last_images: str | None = None
    ended_ns: int = 0
    packed_bytes: int = 0
    throttled_cpus: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreDumped:
    """The step with its result. `gathered_bytes` are in huge pages for a post-copy's dump."""

    step: StepRecord
    memory: Memory


@dataclass(frozen=True)
class Ready:
    """All that a cutover needs: what the steps before it have given, and their records in `steps`."""

    steps: tuple[StepRecord, ...]
    destination: Provisioned
    plan: Plan
    copy: Copy
    memory: Memory


@dataclass(frozen=True)
class Moved:
    """The cutover's: the container is the destination's. `memory` has the round that was made while the hosts armed.

    `group` names the containers that had one decision with it.
    """

    steps: tuple[StepRecord, ...]
    memory: Memory
    heard: Heard
    group: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The source's copy is gone. `fetched_bytes` of memory followed after the commit."""

    step: StepRecord
    fetched_bytes: int
    warnings: tuple[str, ...] = ()
