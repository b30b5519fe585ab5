"""WireGuard's configuration of the gateway and the Docker hosts, made from an inventory.

On the gateway every Docker host is a peer, with its tunnel address and the workloads that it has. On a Docker host the
gateway is the peer for all addresses, and each other Docker host is the peer for its own tunnel address. The longest
prefix takes precedence, so hosts send to each other directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift_agent.constants import BRIDGE

if TYPE_CHECKING:
    from sealift.inventory import Host, Inventory

PORT = 51820


@dataclass(frozen=True)
class Peer:
    """One `[Peer]` section."""

    public_key: str
    allowed_ips: tuple[str, ...]
    endpoint: str | None = None


def render(private_key: str, peers: list[Peer]) -> str:
    """The text that `wg setconf` reads."""
    head = ["[Interface]", f"PrivateKey = {private_key}", f"ListenPort = {PORT}"]
    return "\n".join(head) + "\n\n" + render_peers(peers)


def render_peers(peers: list[Peer]) -> str:
    """The `[Peer]` sections alone, for an attested host: its private key never leaves it."""
    lines = []
    for peer in peers:
        lines += [
            "[Peer]",
            f"PublicKey = {peer.public_key}",
            f"AllowedIPs = {', '.join(peer.allowed_ips)}",
        ]
        if peer.endpoint:
            lines.append(f"Endpoint = {peer.endpoint}")
        lines.append("")
    return "\n".join(lines)


def gateway_peers(inventory: Inventory) -> list[Peer]:
    """The gateway's peers whose keys are known. Those of attested hosts are added later.

    The gateway itself knows which host has which workload (`sealift_agent`).
    """
    return [
        _peer(host, f"{host.tunnel_address}/32") for host in inventory.hosts.values() if host.wireguard_key
    ]


def host_peers(inventory: Inventory, name: str) -> list[Peer]:
    """A Docker host's peers: the gateway for all addresses, the others for their own tunnel addresses."""
    others = [
        _peer(host, f"{host.tunnel_address}/32")
        for other, host in inventory.hosts.items()
        if other != name and host.wireguard_key
    ]
    return [_peer(inventory.gateway, "0.0.0.0/0"), *others]


def environment(inventory: Inventory, host: Host, *, role: str) -> str:
    """`/etc/sealift/network.env`, which `/usr/libexec/sealift/network` reads."""
    network = inventory.network
    values = {
        "ROLE": role,
        "TUNNEL_ADDRESS": host.tunnel_address,
        "TUNNEL_NETWORK": network.tunnel,
        "WORKLOADS": network.workloads,
        "DOCKER_BRIDGE": BRIDGE,
        "MTU": network.mtu,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _peer(host: Host, allowed: str) -> Peer:
    return Peer(host.wireguard_key or "", (allowed,), f"{host.address}:{PORT}")
