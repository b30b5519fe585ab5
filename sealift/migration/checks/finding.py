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
    NETWORK_NAMESPACE = "network namespace"
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
    SELINUX = "SELinux"


class Answer(StrEnum):
    """Can it move? `unknown` stops no migration: a doubtful resource is tried, and a failure is rolled back."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One resource at one host: what was found, whether it can move, and the remedy."""

    resource: Resource
    answer: Answer
    host: str
    what: str
    remedy: str = ""

    def __post_init__(self) -> None:
        # The container chooses the names of files, processes and images.
        object.__setattr__(self, "what", one_line(self.what))
        object.__setattr__(self, "remedy", one_line(self.remedy))

    def __str__(self) -> str:
        said = f"{self.host}: {self.what}"
        return f"{said}. {self.remedy}" if self.remedy else said

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {name: str(value) for name, value in asdict(self).items()}


class Findings:
    """Collects the findings of one host. A resource without an objection gets a `yes`."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.found: list[Finding] = []

    def no(self, resource: Resource, what: str, remedy: str) -> None:
        """The resource prevents the migration."""
        self.found.append(Finding(resource, Answer.NO, self.host, what, remedy))

    def unknown(self, resource: Resource, what: str, remedy: str) -> None:
        """The resource may prevent the migration: it was not tried, or it changes."""
        self.found.append(Finding(resource, Answer.UNKNOWN, self.host, what, remedy))

    def yes(self, resource: Resource, what: str) -> None:
        """The resource does not prevent the migration, if there was no objection before."""
        if not any(one.resource is resource for one in self.found):
            self.found.append(Finding(resource, Answer.YES, self.host, what))
