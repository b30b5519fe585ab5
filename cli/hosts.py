"""`sealift network` and `sealift host`: workloads' addresses, and the hosts that have them."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import InventoryOption, JsonOption  # noqa: TC001 - typer reads the annotations
from cli.output import print_json, print_table, say

network_app = typer.Typer(no_args_is_help=True, help="Which host has which workload's address.")
host_app = typer.Typer(no_args_is_help=True, help="Docker hosts.")


@network_app.command("assign")
def network_assign(
    address: Annotated[str, typer.Argument(help="A workload's address.")],
    host: Annotated[str, typer.Argument(help="The Docker host that has it.")],
    inventory: InventoryOption = None,
) -> None:
    """Make the gateway send a workload's packets to a host. Migrations do it by themselves."""
    from sealift import inventory as inventories
    from sealift.attestation.record import pinned
    from sealift.network import gateway

    gateway.assign(pinned(inventories.load(inventory)), address, host)


@network_app.command("release")
def network_release(
    address: Annotated[str, typer.Argument(help="A workload's address.")], inventory: InventoryOption = None
) -> None:
    """Take an address back."""
    from sealift import inventory as inventories
    from sealift.network import gateway

    gateway.release(inventories.load(inventory), address)


@network_app.command("show")
def network_show(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Show which host has which address, by the gateway's record."""
    from dataclasses import asdict

    from sealift import inventory as inventories
    from sealift.network import gateway

    routes = gateway.routes(inventories.load(inventory))
    if as_json:
        print_json({address: asdict(route) for address, route in routes.items()})
    else:
        print_table(("address", "host"), [(address, route.host) for address, route in sorted(routes.items())])


@host_app.command("prepare")
def host_prepare(
    name: Annotated[str, typer.Argument(help="A Docker host of the inventory, or `gateway`.")],
    inventory: InventoryOption = None,
) -> None:
    """Give a Docker host what it needs to take part.

    That is the runtime wrapper, CRIU's settings, the networks and their rules.
    """
    from sealift import inventory as inventories
    from sealift.attestation.record import pinned
    from sealift.host import prepare, ssh

    known = pinned(inventories.load(inventory))
    if name == "gateway":
        with ssh.connected(name, known.gateway) as connection:
            changed = prepare.gateway(connection)
    else:
        with ssh.connected(name, known.host(name)) as connection:
            changed = prepare.files(connection)
            prepare.docker_network(connection, known.network)
    say("\n".join(changed) if changed else f"{name} has everything already")
