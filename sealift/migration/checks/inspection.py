"""What the checks look at, and what they have found out on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealift.host.agents import Caller
    from sealift.inventory import Inventory
    from sealift.migration.checks.finding import Finding
    from sealift.migration.parties import Side
    from sealift_agent.protocol import HostFacts, Uses


@dataclass(frozen=True)
class Endpoints:
    """A container's name, the hosts and the gateway. `destination` is None where it could not be looked at."""

    inventory: Inventory
    container: str
    source: Side
    destination: Side | None
    destination_name: str
    gateway: Caller


@dataclass
class Inspection:
    """All that was found: Docker's description, the processes' facts, the hosts' facts, and the findings.

    `file_bytes` is what the container's files hold, `image_bytes` what of its image the destination lacks: all but the
    layers that are `left_out`.
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
