"""A point of a sweep: one combination of what can be chosen."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SystemName = Literal["sealift", "docker", "runc-script", "podman", "whole-vm", "floor"]
LabKind = Literal["netns", "vm"]
Path = Literal["tunnel", "plain"]
Driver = Literal["flow", "engine"]


class Point(BaseModel):
    """What to measure. Amounts in megabytes (10⁶ bytes)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lab: LabKind = Field(default="netns", description="Kind of lab.")
    system: SystemName = Field(default="sealift", description="Who moves the container.")
    workload: str = Field(default="redis", description="Name of a workload.")
    memory_mb: float = Field(default=100, ge=0, description="Size of the workload's data.")
    dirty_mb_s: float = Field(default=0, ge=0, description="How much of it changes in a second.")
    locality: float = Field(default=1, gt=0, le=1, description="The part of it that the changes fall into.")
    count: int | None = Field(
        default=None, ge=1, description="Processes or connections, where there are many."
    )
    strategy: str = Field(default="auto", description="What Sealift is asked for.")
    link_mbit_s: float | None = Field(default=None, gt=0, description="Rate of the hosts' links.")
    latency_ms: float | None = Field(default=None, gt=0, description="Delay added to the source's link.")
    at_once: int = Field(default=1, ge=1, le=16, description="How many migrations at the same time.")
    path: Path = Field(default="tunnel", description="Between the hosts: WireGuard, or beside it.")
    small_files: int = Field(
        default=0, ge=0, description="Small files in the writable layer that nobody touches."
    )
    volume_mb: float = Field(default=0, ge=0, description="Size of a volume that nobody touches.")
    driver: Driver = Field(
        default="flow", description="Who calls Sealift's steps: the flow, or one function after the other."
    )

    def settled(self) -> Point:
        """The same point without the choices that its system does not offer."""
        if self.system == "sealift":
            return self
        none = ("strategy", "path", "at_once", "small_files", "volume_mb", "driver")
        return self.model_copy(update={name: _DEFAULTS[name] for name in none})

    def key(self, repeat: int) -> str:
        """What this point's row is called: the same for the same point, whenever and wherever."""
        described = json.dumps(self.model_dump(), sort_keys=True)
        return f"{hashlib.sha256(described.encode()).hexdigest()[:12]}-{repeat}"

    def title(self) -> str:
        """For a person, on one line."""
        own = {name: value for name, value in self.model_dump().items() if value != _DEFAULTS[name]}
        rest = ", ".join(
            f"{name} {value}" for name, value in own.items() if name not in {"system", "workload"}
        )
        return f"{self.system}, {self.workload}" + (f", {rest}" if rest else "")


_DEFAULTS = Point().model_dump()
