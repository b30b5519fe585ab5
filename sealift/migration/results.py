"""What each step passes to later steps: one frozen object a step, in the order of the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealift.attestation.record import Record
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory
    from sealift.migration.heard import Heard
    from sealift.model import Choice, Estimate, Round, StepRecord
    from sealift_agent.protocol import Waited


@dataclass(frozen=True)
class Attested:
    """What the destination has proved. `record` is None if evidence `none` was asked for.

    `inventory` has the keys that it has proved. `connection` is bound to them.
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
    """What is migrated, and how. `container` is Docker's description of it.

    `left_out`: digests of the image's layers that need not be sent. `lazy_restore`: memory is read in after the
    restore. `streams`: the number of connections for pages. `estimated_ns`: when the estimate was made, by
    time.monotonic_ns. `cost_ms`: see `freeze_cost`.
    """

    container: dict[str, Any]
    address: str
    memory_bytes: int
    image_at_destination: bool
    choice: Choice
    estimate: Estimate | None
    estimated_ns: int
    cost_ms: float
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
    """The destination's file for the container's output, and how many bytes of it are there."""

    path: str
    marked: int


@dataclass(frozen=True)
class Copy:
    """The result of sync: the container's counterpart at the destination, with its files as they were.

    `descriptors` are the targets of the container's standard descriptors. `log` is None if Docker keeps no log files.
    """

    step: StepRecord
    container: str
    descriptors: tuple[str, ...]
    log: Log | None
    image_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Memory:
    """The result of pre-dump: the rounds. The next dump has only changes since the last round's images.

    `ended_ns`: when the last one ended, by time.monotonic_ns. `throttled_cpus`: the CPUs that a throttled writer still
    had. `packed_bytes`: the compressed size of all rounds' pages.
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
    """Everything that a cutover needs: the results of earlier steps, and their records in `steps`."""

    steps: tuple[StepRecord, ...]
    destination: Provisioned
    plan: Plan
    copy: Copy
    memory: Memory


@dataclass(frozen=True)
class Moved:
    """The result of the cutover: the container belongs to the destination.

    `memory` includes the round during arming.
    """

    steps: tuple[StepRecord, ...]
    memory: Memory
    heard: Heard
    group: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The source's copy is removed. `fetched_bytes` of memory followed after the commit.

    `waited`: how long processes have waited for it. None if all of it was there before they ran.
    """

    step: StepRecord
    fetched_bytes: int
    warnings: tuple[str, ...] = ()
    waited: Waited | None = None
