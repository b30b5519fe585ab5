"""Prepare a Docker host once: runtime wrapper, CRIU's settings, the workloads' network."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import docker

from sealift.errors import Refused
from sealift.host.docker import RUNTIME, wait_for
from sealift_agent.constants import BRIDGE, INTERFACE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sealift.host.ssh import Connection
    from sealift.inventory import Network

DOCKER_PATIENCE_S = 120

TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
DROPS_DIRECT = 28
"""From this version on Docker drops what is routed to a container's address, unless it comes from such an interface."""


CARRIED = (
    ("usr/libexec/sealift/runtime", 0o755),
    ("usr/libexec/sealift/restore", 0o755),
    ("usr/libexec/sealift/armed/criu", 0o755),
    ("usr/libexec/sealift/armed/tar", 0o755),
    ("usr/libexec/sealift/network", 0o755),
    ("etc/criu/runc.conf", 0o644),
)
"""The files that a Docker host gets. Its administrator makes Docker's own settings: see `files`."""

GATEWAYS = tuple(one for one in CARRIED if one[0].endswith("/network"))
"""The files that the gateway gets."""


def gateway(connection: Connection) -> list[str]:
    """Install the tunnel's script and rules on the gateway. Returns what was changed, a line each."""
    return _carry(connection, GATEWAYS)


def files(connection: Connection) -> list[str]:
    """Install the runtime wrapper and CRIU's settings where they differ. Returns what was changed, a line each."""
    changed = _carry(connection, CARRIED)
    found = wait_for(connection, patience_s=DOCKER_PATIENCE_S).info()
    if not found["LiveRestoreEnabled"]:
        changed.append(
            f'{connection.name}: please set "live-restore": true in /etc/docker/daemon.json yourself: otherwise '
            "containers end when dockerd ends"
        )
    if RUNTIME not in found["Runtimes"]:
        raise Refused(
            f"Docker has no runtime {RUNTIME!r}",
            host=connection.name,
            step="prepare",
            remedy=f'Put {{"runtimes": {{"{RUNTIME}": {{"path": "/usr/libexec/sealift/runtime"}}}}}} into '
            "/etc/docker/daemon.json and `systemctl reload docker`",
        )
    return changed


def _carry(connection: Connection, what: Iterable[tuple[str, int]]) -> list[str]:
    carried = resources.files("sealift.machine") / "files"
    changed = []
    for name, mode in what:
        content = (carried / name).read_bytes()
        if connection.run(["cat", f"/{name}"], check=False).stdout.encode() != content:
            connection.put(f"/{name}", content, mode=mode)
            changed.append(f"{connection.name}: /{name} written")
    if connection.run(["test", "-e", "/etc/sealift/network.env"], check=False).status == 0:
        connection.run(["/usr/libexec/sealift/network", "rules"])  # this changes nothing if they are loaded
    return changed


def docker_network(connection: Connection, network: Network) -> None:
    """Create the workloads' Docker network if it is missing.

    It is the same on all hosts, so that addresses can move.
    """
    api = wait_for(connection, patience_s=DOCKER_PATIENCE_S)
    if there := api.networks(names=[f"^{network.docker_network}$"]):
        _trusted(connection, network, there[0], api.version()["Version"])
        return
    gateway = str(next(network.workloads.hosts()))
    pool = docker.types.IPAMPool(subnet=str(network.workloads), gateway=gateway)
    api.create_network(
        network.docker_network,
        driver="bridge",
        ipam=docker.types.IPAMConfig(pool_configs=[pool]),
        options={
            "com.docker.network.bridge.name": BRIDGE,
            # A workload's packets keep its own address when they leave a host.
            "com.docker.network.bridge.enable_ip_masquerade": "false",
            "com.docker.network.driver.mtu": str(network.mtu),
            TRUSTED: INTERFACE,
        },
    )


def _trusted(connection: Connection, network: Network, there: dict[str, Any], version: str) -> None:
    """Refused if Docker would drop what comes through the tunnel for a container in a network that is there already."""
    old = int(version.partition(".")[0]) < DROPS_DIRECT
    if not old and INTERFACE not in (there.get("Options") or {}).get(TRUSTED, "").split(":"):
        raise Refused(
            f"Docker {version} drops what comes through the tunnel for network {network.docker_network!r}, which was "
            f"made without the option {TRUSTED}={INTERFACE}",
            host=connection.name,
            step="prepare",
            remedy=f"Stop its containers, `docker network rm {network.docker_network}`, `sealift host prepare "
            f"{connection.name}`, and start them again",
        )
