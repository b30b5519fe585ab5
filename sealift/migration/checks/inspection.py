"""The inputs of the checks, and what they have found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sealift.migration.binds import NO_BINDS, Binds

if TYPE_CHECKING:
    from sealift.host.agents import Caller
    from sealift.inventory import Inventory
    from sealift.migration.checks.finding import Finding
    from sealift.migration.parties import Side
    from sealift_agent.protocol import HostFacts, Uses


@dataclass(frozen=True)
class Endpoints:
    """A container's name, the hosts and the gateway. `destination` is None if it could not be examined.

    `post_copy`: whether this strategy was asked for. Its pages never lie in images at the destination. `binds`: where
    bind mounts go.
    """

    inventory: Inventory
    container: str
    source: Side
    destination: Side | None
    destination_name: str
    gateway: Caller
    post_copy: bool = False
    binds: Binds = NO_BINDS


@dataclass
class Inspection:
    """All that was found: Docker's description, the processes' facts, the hosts' facts, and the findings.

    `file_bytes` is the size of the container's files, `image_bytes` the part of its image that the destination lacks:
    all but the layers that are `left_out`.
    """

    container: dict[str, Any]
    uses: Uses
    here: HostFacts
    there: HostFacts | None
    address: str = ""
    image_there: bool = False
    file_bytes: int = 0
    image_bytes: int = 0
    left_out: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)
