"""The gateway from the controller's side: which host has which workload's address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.host import ssh
from sealift.host.agents import Agent
from sealift_agent.protocol import Assign, Release, ShowRecord

if TYPE_CHECKING:
    from sealift.inventory import Inventory
    from sealift_agent.protocol import Route


def assign(inventory: Inventory, address: str, host: str) -> None:
    """Give an address to a host: the gateway sends the clients' packets there from now on.

    Raises UnusableInput if the host's WireGuard key is not known.
    """
    entry = inventory.host(host)
    if not entry.wireguard_key:
        raise UnusableInput(
            "its WireGuard key is not known",
            host=host,
            step="assign",
            remedy="Put its wireguard_key into the inventory, or `sealift attest` it if it proves its keys",
        )
    with ssh.connected("gateway", inventory.gateway) as connection, Agent(connection, "gateway") as gateway:
        gateway.call(Assign(address, entry.wireguard_key, host))


def release(inventory: Inventory, address: str) -> None:
    """Take an address back from the host that has it."""
    with ssh.connected("gateway", inventory.gateway) as connection, Agent(connection, "gateway") as gateway:
        gateway.call(Release(address))


def routes(inventory: Inventory) -> dict[str, Route]:
    """The route of each address, which names the host that has it."""
    with ssh.connected("gateway", inventory.gateway) as connection, Agent(connection, "gateway") as gateway:
        return gateway.call(ShowRecord()).routes
