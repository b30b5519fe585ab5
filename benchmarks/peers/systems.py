"""All systems under measurement by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.docker import DockerCheckpoint
from benchmarks.peers.floor import Floor
from benchmarks.peers.podman import Podman
from benchmarks.peers.runc_script import RuncScript
from benchmarks.peers.sealift import Sealift
from benchmarks.peers.whole_vm import WholeVm

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers.system import System
    from benchmarks.point import SystemName

SYSTEMS: dict[SystemName, Callable[[], System]] = {
    "sealift": Sealift,
    "docker": DockerCheckpoint,
    "runc-script": RuncScript,
    "podman": Podman,
    "whole-vm": WholeVm,
    "floor": Floor,
}


def system(name: SystemName) -> System:
    """A fresh one of that name."""
    return SYSTEMS[name]()
