"""The status of a lab: each host is asked over SSH."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from sealift.errors import SealiftError
from sealift.host import ssh
from sealift.lab import lab
from sealift.lab.layout import HOSTS


@dataclass(frozen=True)
class HostStatus:
    """One host: whether it answers, and its kernel."""

    name: str
    address: str
    up: bool
    answer: str
    kernel: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read() -> list[HostStatus]:
    """Ask all hosts of the running lab. Raises UnusableInput if none is up."""
    inventory = lab.running()

    def one(name: str) -> HostStatus:
        entry = lab.machine(inventory, name)
        try:
            with ssh.connected(name, entry) as connection:
                kernel = connection.run(["uname", "-r"]).stdout.strip()
        except SealiftError as silent:
            return HostStatus(name, entry.address, up=False, answer=str(silent), kernel="")
        return HostStatus(name, entry.address, up=True, answer="yes", kernel=kernel)

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        return list(pool.map(one, [host.name for host in HOSTS]))
