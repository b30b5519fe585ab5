"""Orders to the agent of facts: what a host and a container are like. They change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .order import Order, belongs_to
from .parts import ContainerFacts, Endpoint, HostFacts, PathFound, Surveyed, VolumeFound
from .words import Role


@belongs_to(Role.FACTS, "host", HostFacts)
@dataclass(frozen=True)
class DescribeHost(Order[HostFacts]):
    """Kernel, CRIU, processor, memory, space of the host."""


@belongs_to(Role.FACTS, "container", ContainerFacts)
@dataclass(frozen=True)
class DescribeContainer(Order[ContainerFacts]):
    """What the processes of a container hold that matters for a dump, and how large they are."""

    container: str


@belongs_to(Role.FACTS, "find_layer", str)
@dataclass(frozen=True)
class FindLayer(Order[str]):
    """The directory with what a container has written into its image's files."""

    container: str


@belongs_to(Role.FACTS, "survey", Surveyed)
@dataclass(frozen=True)
class Survey(Order[Surveyed]):
    """How much memory the container changes in a second, and meanwhile how much the link to `endpoint` carries."""

    container: str
    tracked: bool
    endpoint: Optional[Endpoint]


@belongs_to(Role.FACTS, "receive_rate", Endpoint, "listens for one measurement")
@dataclass(frozen=True)
class ReceiveRate(Order[Endpoint]):
    """Wait for a measurement of the link. Answers where."""

    address: str


@belongs_to(Role.FACTS, "paths", list[PathFound])
@dataclass(frozen=True)
class DescribePaths(Order[list[PathFound]]):
    """What lies at each of these paths on the host. A link as the last part is followed."""

    paths: list[str]


@belongs_to(Role.FACTS, "volumes", dict[str, Optional[VolumeFound]])
@dataclass(frozen=True)
class DescribeVolumes(Order[dict[str, Optional[VolumeFound]]]):
    """What is to be known of volumes before a migration; null for one that is not there."""

    names: list[str]


@belongs_to(Role.FACTS, "layers", int)
@dataclass(frozen=True)
class CountLayers(Order[int]):
    """How many of an image's layers are on the host, from the lowest on; 0 if they can't be left out of the image."""

    layers: list[str]


@belongs_to(Role.FACTS, "layer_bytes", list[int])
@dataclass(frozen=True)
class LayerBytes(Order[list[int]]):
    """How much each of an image's layers holds, in bytes; 0 where Docker's own files do not say it."""

    layers: list[str]


@belongs_to(Role.FACTS, "tree_bytes", int)
@dataclass(frozen=True)
class TreeBytes(Order[int]):
    """How much directories hold, in bytes on disk."""

    paths: list[str]


@belongs_to(Role.FACTS, "too_deep", list[str])
@dataclass(frozen=True)
class TooDeep(Order[list[str]]):
    """Which of the directories hold a file whose name, relative to them, is longer than `name_bytes`."""

    paths: list[str]
    name_bytes: int
