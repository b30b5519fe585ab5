"""WireGuard's configuration of the gateway and the Docker hosts, written out of an inventory.

The gateway has every Docker host as its peer, with that host's tunnel address and the workloads that live there. A
Docker host has the gateway as its peer for all addresses, and each other Docker host for that one's tunnel address:
the longest prefix wins, so hosts talk to each other directly.
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
    """The `[Peer]` sections alone: the private key of an attested host never leaves it."""
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
    """The gateway's peers, as far as their keys are known: those of attested hosts come later.

    Which workloads live where it knows by itself (`sealift_agent`).
    """
    return [
        _peer(host, f"{host.tunnel_address}/32") for host in inventory.hosts.values() if host.wireguard_key
    ]


def host_peers(inventory: Inventory, name: str) -> list[Peer]:
    """A Docker host's peers: the gateway for everything, the others for themselves."""
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
