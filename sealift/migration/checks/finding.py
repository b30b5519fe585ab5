"""A finding: one resource, what was found of it, whether it can move, and what to do if it can't."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from sealift.plain_text import one_line


class Resource(StrEnum):
    """What is judged, in the order of a report."""

    EVIDENCE = "evidence"
    CPU = "CPU"
    KERNEL = "kernel"
    NETWORK = "network"
    CRIU = "CRIU"
    DOCKER = "Docker"
    SPACE = "space"
    NAME = "name"
    ADDRESS = "address"
    NAMESPACES = "namespaces"
    MOUNTS = "mounts"
    PROCESSES = "processes"
    FILES = "open files"
    SOCKETS = "sockets"
    IO_URING = "io_uring"
    TERMINALS = "terminals"
    DEVICES = "devices"
    GPUS = "GPUs"
    MEMORY = "memory"
    LOCKED = "locked memory"
    HUGE_PAGES = "huge pages"
    TIMERS = "timers"
    SECCOMP = "seccomp"
    APPARMOR = "AppArmor"


class Answer(StrEnum):
    """Can it move? `unknown` stops no migration: what is in doubt is tried, and rolled back if it fails."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: where, what was found, whether it can move, and what to do about it."""

    resource: Resource
    answer: Answer
    host: str
    what: str
    remedy: str = ""

    def __post_init__(self) -> None:
        # Names of files, processes, images: the container chooses them.
        object.__setattr__(self, "what", one_line(self.what))
        object.__setattr__(self, "remedy", one_line(self.remedy))

    def __str__(self) -> str:
        said = f"{self.host}: {self.what}"
        return f"{said}. {self.remedy}" if self.remedy else said

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {name: str(value) for name, value in asdict(self).items()}


class Findings:
    """Collects the findings of one host. What was asked about and has nothing against it gets a `yes`."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.found: list[Finding] = []

    def no(self, resource: Resource, what: str, remedy: str) -> None:
        """Something stands in the way."""
        self.found.append(Finding(resource, Answer.NO, self.host, what, remedy))

    def unknown(self, resource: Resource, what: str, remedy: str) -> None:
        """Something may stand in the way: it was not tried, or it comes and goes."""
        self.found.append(Finding(resource, Answer.UNKNOWN, self.host, what, remedy))

    def yes(self, resource: Resource, what: str) -> None:
        """Nothing stands in the way, as far as nothing was said against it before."""
        if not any(one.resource is resource for one in self.found):
            self.found.append(Finding(resource, Answer.YES, self.host, what))
