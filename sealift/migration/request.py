"""The parameters of a migration. Options of the command line and of the flows' forms come from here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sealift.errors import Refused, UnusableInput
from sealift.migration.binds import Binds, pair
from sealift.model import Step, Strategy

if TYPE_CHECKING:
    from sealift.inventory import Inventory

EvidenceKind = Literal["snp", "sev", "none"]

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
BYTES = r"^(\d+(?:\.\d+)?)([kMG]?)(?:B(?:/s)?)?$"


def byte_count(value: Any) -> Any:
    """A number of bytes from a text such as 500k, 100M, 1G, 1.5GB/s. ValueError for another text."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(BYTES, value)
    amount = int(float(found[1]) * UNITS[found[2]]) if found else 0
    if not amount:
        raise ValueError(f"{value!r} is not an amount of bytes: write it as 500k, 100M or 1G")
    return amount


ByteCount = Annotated[
    int,
    Field(ge=1),
    BeforeValidator(
        byte_count, json_schema_input_type=Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=BYTES)]
    ),
]


def bind_pair(value: Any) -> Any:
    """The text of a pair of paths, checked. ValueError for another text."""
    if isinstance(value, str):
        pair(value)
    return value


BindPair = Annotated[str, BeforeValidator(bind_pair)]


class Options(BaseModel):
    """How to migrate. Each field is an option of the command line, by the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Strategy = Field(
        default=Strategy.AUTO,
        description="How memory gets across: auto, pre-copy, post-copy or stop-and-copy. auto chooses by what the "
        "hosts can do.",
    )
    max_rounds: int = Field(
        default=5,
        ge=1,
        le=30,
        description="Most pre-dump rounds, not counting one while the hosts are armed.",
    )
    evidence: EvidenceKind | None = Field(
        default=None,
        description="What the destination must prove: snp, sev or none. Default: what the inventory says. none has to "
        "be asked for by name, and a worker's run may ask for it only for hosts that the inventory lists as "
        "without_evidence.",
    )
    max_downtime: float | None = Field(
        default=None,
        ge=0.001,
        description="Longest freeze that may be predicted, in seconds. auto takes the least risky strategy that keeps "
        "to it; refused if none does.",
    )
    bandwidth: ByteCount | None = Field(
        default=None,
        description="Most that is sent while the container runs, in bytes a second: 500k, 100M, 1G, or a number.",
    )
    throttle: bool = Field(
        default=False,
        description="Slow a writer down that dirties memory faster than the link carries it, until the freeze.",
    )
    compress: bool = Field(
        default=False,
        description="Compress pages on their way (zstd), for links slower than a processor compresses. Post-copy's "
        "pages are not compressed.",
    )
    streams: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Connections that pages go over. Default: several where the round trip is long and they carry "
        "more than one. Post-copy's pages go over one.",
    )
    bind: tuple[BindPair, ...] = Field(
        default=(),
        description="Where a bind mount lies there: HOST_PATH=DESTINATION_PATH, for all beneath it. What lies there is "
        "replaced.",
    )
    binds_as_they_are: bool = Field(
        default=False,
        description="Bind mounts that have no such pair get the same path there, if nothing lies there yet.",
    )


DEFAULTS = Options()

Retries = Annotated[
    int, Field(ge=0, le=10, description="How often to try again after a cutover that was rolled back.")
]
"""It is not an option of one migration, since each attempt is a migration of its own."""


@dataclass(frozen=True)
class Request:
    """The container, by name or id; source and destination, by the inventory's names; and the options."""

    container: str
    source: str
    destination: str
    options: Options = DEFAULTS


def binds(inventory: Inventory, request: Request) -> Binds:
    """Where the container's bind mounts lie at the destination, by the inventory and the options."""
    options = request.options
    return Binds.of(
        inventory, request.source, request.destination, options.bind, as_they_are=options.binds_as_they_are
    )


def check_evidence(inventory: Inventory, request: Request) -> None:
    """Check that the requested evidence fits the inventory's entry of the destination. Contacts no host."""
    host, asked = inventory.host(request.destination), request.options.evidence
    if asked == "none":
        return
    if host.vm is None:
        raise Refused(
            "it can't be verified: the inventory has no table `vm` that says what it must prove",
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
