"""Change the WireGuard peers of a Docker host, when a VM with new keys takes the place of an old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift_agent.constants import INTERFACE

if TYPE_CHECKING:
    from sealift.host.ssh import Connection


def replace(connection: Connection, peer: str, tunnel_address: str, endpoint: str) -> None:
    """Accept the public key `peer` for the tunnel address, and remove other peers of this address."""
    own = f"{tunnel_address}/32"
    shown = connection.run(["wg", "show", INTERFACE, "allowed-ips"]).stdout
    held = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    if held.get(peer) == [own] and sum(own in addresses for addresses in held.values()) == 1:
        return
    changes = [
        word for key, ips in held.items() if key != peer and ips == [own] for word in ("peer", key, "remove")
    ]
    changes += ["peer", peer, "endpoint", endpoint, "allowed-ips", own]
    connection.run(["wg", "set", INTERFACE, *changes])
