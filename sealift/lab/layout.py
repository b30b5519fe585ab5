"""Names, addresses and places of a lab. Its networks lie in 198.18.0.0/15, which no real network uses (RFC 2544)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from sealift.paths import cache_dir

if TYPE_CHECKING:
    from pathlib import Path

UNDERLAY = IPv4Network("198.18.0.0/24")
"""It represents the Internet. Every machine has an address in it, and the controller, too."""

CLIENTS = IPv4Network("198.19.0.0/24")
"""The network between the clients and the gateway."""

MTU = 9000
"""Bytes. The underlay uses jumbo frames, because an emulated processor needs its time per packet, not per byte."""

TUNNEL_MTU = MTU - 80
"""WireGuard's headers take 60 bytes over IPv4 and 80 over IPv6."""

VCPUS = 2
"""Processors of each VM. On two cores (QEMU 10), a measured VM needs 22 s with two of them from its launch to Docker's
answer, and 28 s with one."""

MEMORY_MIB = 2048
DATA_DISK_MIB = 8192
"""Sizes for each VM. The disk is sparse: it uses only the space that was written."""

CONTROLLER = IPv4Address("198.18.0.1")
INTERFACE = "sealift-lab"
"""The controller's interface. No other part of a lab is outside of its namespaces."""


@dataclass(frozen=True)
class LabHost:
    """One host of the lab.

    `tunnel_address` is set if it has WireGuard, `clients_address` if the clients reach it directly.
    """

    name: str
    address: IPv4Address
    tunnel_address: IPv4Address | None = None
    clients_address: IPv4Address | None = None
    docker: bool = False

    @property
    def mac(self) -> str:
        """The hardware address on the underlay. It is the same at every start."""
        return _mac(self.address)

    @property
    def clients_mac(self) -> str | None:
        """The hardware address on the clients' network, or None."""
        return _mac(self.clients_address) if self.clients_address else None


def _mac(address: IPv4Address) -> str:
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in address.packed[1:])


SOURCE = LabHost("source", IPv4Address("198.18.0.10"), IPv4Address("10.78.0.10"), docker=True)
DESTINATION = LabHost("destination", IPv4Address("198.18.0.20"), IPv4Address("10.78.0.20"), docker=True)
GATEWAY = LabHost("gateway", IPv4Address("198.18.0.2"), IPv4Address("10.78.0.1"), IPv4Address("198.19.0.1"))
CLIENT = LabHost("client", IPv4Address("198.18.0.3"), None, IPv4Address("198.19.0.10"))
PROVIDER = LabHost("provider", IPv4Address("198.18.0.4"))

HOSTS = (SOURCE, DESTINATION, GATEWAY, CLIENT, PROVIDER)


def machines_dir(directory: Path) -> Path:
    """The directory with the VMs' disks of the lab in `directory`.

    It is in the cache, since `/run` may be a small tmpfs.
    """
    return cache_dir() / "machines" / hashlib.sha256(str(directory).encode()).hexdigest()[:8]
