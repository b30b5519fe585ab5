"""What is asked for in one migration, and whether it goes together with the inventory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import Refused, UnusableInput
from sealift.model import Step, Strategy

if TYPE_CHECKING:
    from sealift.inventory import Inventory


@dataclass(frozen=True)
class Request:
    """What is asked for. `evidence`: snp, sev, none; None is what the inventory says of the destination.

    `max_downtime_s` bounds the predicted freeze, `bandwidth` what the live phases send, in bytes a second.
    `throttle`: whether a writer that never converges may be slowed down. `compress`: whether pages are, on their way.
    `streams`: over how many connections they go; None is as many as were measured to be worth it.
    """

    container: str
    source: str
    destination: str
    strategy: Strategy = Strategy.AUTO
    max_rounds: int = 5
    evidence: str | None = None
    max_downtime_s: float | None = None
    bandwidth: int | None = None
    throttle: bool = False
    compress: bool = False
    streams: int | None = None


def check_evidence(inventory: Inventory, request: Request) -> None:
    """What is asked for and what the inventory says of the destination go together. Touches nothing."""
    host, asked = inventory.host(request.destination), request.evidence
    if asked == "none":
        return
    if host.vm is None:
        raise Refused(
            "nothing would vouch for it: the inventory has no table `vm` that says what it must prove",
            host=request.destination,
            step=Step.ATTEST,
            remedy="Add one (README, section Inventory), or ask for `--evidence none` by name",
        )
    if asked not in {None, host.vm.evidence}:
        raise Refused(
            f"{asked} is asked for, and the inventory says that it proves itself by {host.vm.evidence}",
            host=request.destination,
            step=Step.ATTEST,
            remedy="Take snp, sev or none as the inventory has it",
        )


def check_hosts(inventory: Inventory, request: Request) -> None:
    """UnusableInput unless source and destination are two hosts of the inventory."""
    inventory.host(request.source)
    inventory.host(request.destination)
    if request.source == request.destination:
        raise UnusableInput(
            f"source and destination are both {request.source!r}",
            step=Step.PREFLIGHT,
            remedy="Name two different hosts",
        )
