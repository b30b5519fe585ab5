"""WireGuard's allowed IPs at the gateway: the host to which the packets for an address go."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..constants import INTERFACE
from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INTERFACE"]
"""Other modules that change allowed IPs import the interface's name from here."""

NETWORK = Path("/etc/sealift/network.env")
STEP = "network switch"


def apply(routes: Mapping[str, Any]) -> dict[str, str]:
    """Set them to the record's routes, in one call of `wg`. Returns each address that can't be served, with the reason.

    If a peer's list differs, the whole list is given: its tunnel address and its workloads. An address that another
    peer had moves in the same operation. A peer that WireGuard does not have does not affect the addresses of others.
    """
    held = peers()
    arguments: list[str] = []
    for peer, has in held.items():
        tunnel = [ip for ip in has if ip.removesuffix("/32") not in routes and not _is_workload(ip)]
        wanted = tunnel + [f"{address}/32" for address, route in routes.items() if route["peer"] == peer]
        if set(wanted) != set(has):
            arguments += ["peer", peer, "allowed-ips", ",".join(wanted)]
    if arguments:
        _wg("set", INTERFACE, *arguments)
    return {address: unknown(route["peer"]) for address, route in routes.items() if route["peer"] not in held}


def set_key(seated: Mapping[str, str], routes: Mapping[str, Any]) -> None:
    """Make a key the one that WireGuard knows for a tunnel address. A former peer of that address is removed."""
    peer, own = seated["peer"], f"{seated['tunnel']}/32"
    arguments: list[str] = []
    for other, addresses in peers().items():
        if own in addresses and other != peer:
            arguments += ["peer", other, "remove"]
    mine = [f"{address}/32" for address, route in routes.items() if route["peer"] == peer]
    allowed = ",".join([own, *mine])
    _wg("set", INTERFACE, *arguments, "peer", peer, "endpoint", seated["endpoint"], "allowed-ips", allowed)


def peers() -> dict[str, list[str]]:
    """Each of WireGuard's peers with its allowed IPs."""
    held = {}
    for line in _wg("show", INTERFACE, "allowed-ips").splitlines():
        peer, *addresses = line.split()
        held[peer] = [address for address in addresses if address != "(none)"]
    return held


def unknown(peer: str) -> str:
    """The message about a peer that WireGuard does not have."""
    return f"WireGuard has no peer {peer}"


def _is_workload(allowed: str) -> bool:
    for line in NETWORK.read_text().splitlines():
        if line.startswith("WORKLOADS="):
            network = ipaddress.ip_network(line.partition("=")[2])
            return ipaddress.ip_network(allowed).subnet_of(network)  # type: ignore[arg-type]
    return False


def _wg(*arguments: str) -> str:
    try:
        done = subprocess.run(["wg", *arguments], capture_output=True, text=True, check=False)
    except OSError as failure:
        raise AgentError(f"`wg {arguments[0]}` could not be started: {failure}", STEP) from failure
    if done.returncode != 0:
        raise AgentError(f"`wg {arguments[0]}` failed: {done.stderr.strip()}", STEP)
    return done.stdout
