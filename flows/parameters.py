"""The parameters that several flows have: what Prefect's UI says of each in its form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sealift import model

Inventory = Annotated[
    Path | None,
    Field(
        description="The inventory file. A worker takes one of /etc/sealift. Default: sealift.toml, or the lab's."
    ),
]
Strategy = Annotated[
    model.Strategy, Field(description="How memory gets across; auto chooses by what the hosts can do.")
]
Rounds = Annotated[int, Field(description="Most pre-dump rounds.", ge=1, le=30)]
Evidence = Annotated[
    Literal["snp", "sev", "none"] | None,
    Field(
        description="What the destination must prove. Default: what the inventory says; none only by name, and from "
        "a worker only of hosts that the inventory lists as without_evidence."
    ),
]
Downtime = Annotated[
    float | None,
    Field(description="Longest predicted freeze, in seconds; refused if none keeps to it.", gt=0),
]
Bandwidth = Annotated[
    int | None, Field(description="What may be sent before the freeze, in bytes a second.", gt=0)
]
Throttle = Annotated[
    bool, Field(description="Slow a writer down that gets memory dirty faster than the link carries it.")
]
Compress = Annotated[
    bool,
    Field(description="Compress pages on their way (zstd): for links slower than a processor compresses."),
]
Streams = Annotated[
    int | None,
    Field(
        description="Connections that pages go over. Default: several if the way is long and one is slow.",
        ge=1,
        le=16,
    ),
]
Retries = Annotated[
    int, Field(description="How often to try again after a cutover that was rolled back.", ge=0, le=10)
]
