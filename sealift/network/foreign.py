"""Addresses and routes of a host that are not Sealift's and overlap the tunnel's or the workloads' network.

The provider writes an attested VM's addresses, and they are not measured. An address or route with a longer prefix than
the tunnel's takes precedence. The VM would then ask the provider whether it may let the container run.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from sealift.errors import HostUnreachable, Refused
from sealift_agent.constants import BRIDGE, INTERFACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.host.ssh import Connection
    from sealift.inventory import Network

COMMANDS = "ip -json -4 address show && ip -json -4 route show table all && ip -json -4 rule show"
"""Each prints one line of JSON (ip-address(8), ip-route(8), ip-rule(8))."""

OWN = frozenset({INTERFACE, BRIDGE})
OWN_TABLES = frozenset({"77", "78"})
"""The tables in which `/usr/libexec/sealift/network` makes routes that have no interface."""

KERNEL_RULES = frozenset({(0, "local"), (32766, "main"), (32767, "default")})


REMEDY = "Have its provider correct its addresses, or take other networks in the inventory's table network"


def refuse(connection: Connection, network: Network, step: str) -> None:
    """Raise Refused, with every reason, if an address or route that is not Sealift's overlaps the two networks."""
    if found := find(connection, network, step):
        raise Refused(
            sentence(network, found),
            host=connection.name,
            step=step,
            remedy=f"Nothing was released to it. {REMEDY}",
            reasons=found,
        )


def sentence(network: Network, found: tuple[str, ...]) -> str:
    """The reasons in one sentence."""
    networks = f"the tunnel's ({network.tunnel}) or the workloads' ({network.workloads})"
    return f"its own network overlaps {networks}: {'; '.join(found)}"


def find(connection: Connection, network: Network, step: str) -> tuple[str, ...]:
    """Ask a host, and describe what overlaps. Raises HostUnreachable for an answer that is not in the format."""
    lines = connection.run(["sh", "-c", COMMANDS]).stdout.splitlines()
    try:
        addresses, routes, rules = (json.loads(line) for line in lines)
        return tuple(claims(addresses, routes, rules, network))
    except (ValueError, KeyError, TypeError) as nonsense:
        raise HostUnreachable(
            "it describes its addresses in an unknown format", host=connection.name, step=step
        ) from nonsense


def claims(
    addresses: list[dict[str, Any]],
    routes: list[dict[str, Any]],
    rules: list[dict[str, Any]],
    network: Network,
) -> Iterator[str]:
    """Describe each address, route or policy rule that is not Sealift's and overlaps the two networks.

    The arguments are what `COMMANDS` print. A default route is left out, since every other prefix is longer.
    """
    for link in addresses:
        for one in link.get("addr_info", ()):
            # For a point-to-point address the kernel makes a route to the other end.
            prefix = f"{one.get('address', one['local'])}/{one['prefixlen']}"
            mine = IPv4Network(f"{one['local']}/32")
            if link["ifname"] not in OWN and (
                _overlaps(_network(prefix), network) or _overlaps(mine, network)
            ):
                yield f"the address {one['local']}/{one['prefixlen']} on {link['ifname']}"
    for route in routes:
        kind, dst = route.get("type", "unicast"), route["dst"]
        table, device = str(route.get("table", "main")), route.get("dev")
        if device in OWN or (device is None and table in OWN_TABLES and kind in {"throw", "unreachable"}):
            continue
        # The kernel makes these routes for addresses, which were reported above.
        if route.get("protocol") == "kernel" and kind in {"unicast", "local", "broadcast"}:
            continue
        if (dst == "default" and kind == "unicast") or not _overlaps(_network(dst), network):
            continue
        yield f"the route {dst} in the table {table}" + (f" by {device}" if device else "")
    for rule in rules:
        if (rule["priority"], rule.get("table")) not in KERNEL_RULES and not _ours(rule, network):
            yield f"the policy rule {rule['priority']} (table {rule.get('table', 'none')})"


def _ours(rule: dict[str, Any], network: Network) -> bool:
    sources, targets = (_selector(rule, end) for end in ("src", "dst"))
    if rule.get("table") == "77":
        return sources == network.workloads and targets is None
    return rule.get("table") == "78" and sources is None and targets in {network.tunnel, network.workloads}


def _selector(rule: dict[str, Any], end: str) -> IPv4Network | None:
    if rule.get(end, "all") == "all":
        return None
    return IPv4Network(f"{rule[end]}/{rule.get(f'{end}len', 32)}")


def _network(text: str) -> IPv4Network:
    return IPv4Network("0.0.0.0/0" if text == "default" else text, strict=False)


def _overlaps(found: IPv4Network, network: Network) -> bool:
    return found.overlaps(network.tunnel) or found.overlaps(network.workloads)
