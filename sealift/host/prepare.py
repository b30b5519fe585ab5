"""What a Docker host needs once before it takes part: the network of the workloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker

from sealift.host.docker import wait_for
from sealift.network.wireguard import BRIDGE

if TYPE_CHECKING:
    from sealift.host.ssh import Connection
    from sealift.inventory import Network

DOCKER_PATIENCE_S = 120


def docker_network(connection: Connection, network: Network) -> None:
    """Create the workloads' Docker network unless it is there. The same on every host: addresses move with containers."""
    api = wait_for(connection, patience_s=DOCKER_PATIENCE_S)
    if api.networks(names=[f"^{network.docker_network}$"]):
        return
    gateway = str(next(network.workloads.hosts()))
    pool = docker.types.IPAMPool(subnet=str(network.workloads), gateway=gateway)
    api.create_network(
        network.docker_network,
        driver="bridge",
        ipam=docker.types.IPAMConfig(pool_configs=[pool]),
        options={
            "com.docker.network.bridge.name": BRIDGE,
            # A workload's packets carry its own address, wherever they leave a host.
            "com.docker.network.bridge.enable_ip_masquerade": "false",
            "com.docker.network.driver.mtu": str(network.mtu),
        },
    )
