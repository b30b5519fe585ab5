"""The lab's links: an underlay that connects all machines, and the network between the clients and the gateway.

Both bridges are in a network namespace of their own. So all interfaces but one disappear with the lab's processes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.lab.layout import CLIENTS, CONTROLLER, INTERFACE, MTU, UNDERLAY, LabHost
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VM_BRIDGE = "br0"
"""The provider's bridge, which has its uplink and the VMs' links."""


def wire(
    switch: int,
    hosts: Mapping[LabHost, int],
    *,
    mark: str,
    virtual: Sequence[LabHost],
    provider: LabHost,
    workloads: str,
) -> None:
    """Connect all hosts. `hosts` maps a host to its first process. `virtual` are the VMs in the provider.

    The alias of the controller's interface is the lab's mark. It tells which lab the interface belongs to.
    """
    _ip(
        switch,
        [
            "link add underlay type bridge",
            "link add clients type bridge",
            "link set underlay up",
            "link set clients up",
            "link set lo up",
        ],
    )
    run(
        [
            "ip",
            "link",
            "add",
            INTERFACE,
            "mtu",
            str(MTU),
            "type",
            "veth",
            "peer",
            "name",
            "controller",
            "mtu",
            str(MTU),
            "netns",
            str(switch),
        ]
    )
    run(["ip", "link", "set", INTERFACE, "alias", mark])
    run(["ip", "address", "add", f"{CONTROLLER}/{UNDERLAY.prefixlen}", "dev", INTERFACE])
    run(["ip", "link", "set", INTERFACE, "up"])
    _ip(switch, ["link set controller master underlay up"])
    for host, pid in hosts.items():
        connect(switch, host, pid, virtual if host == provider else (), workloads)


def connect(switch: int, host: LabHost, pid: int, virtual: Sequence[LabHost], workloads: str) -> None:
    """Connect one host; `virtual` are the machines that are connected to it."""
    links = [
        f"link add {host.name} mtu {MTU} type veth peer name eth0 address {host.mac} mtu {MTU} netns {pid}",
        f"link set {host.name} master underlay up",
    ]
    if host.clients_address:
        links.append(
            f"link add {host.name}-c type veth peer name eth1 address {host.clients_mac} netns {pid}"
        )
        links.append(f"link set {host.name}-c master clients up")
    _ip(switch, links)
    _ip(pid, _addresses(host, virtual, workloads))


def disconnect(switch: int, host: LabHost) -> None:
    """Delete one host's links, as a power failure does. No other host gets a packet that closes a connection."""
    _ip(
        switch,
        [
            f"link delete {name}"
            for name in (host.name, *([f"{host.name}-c"] if host.clients_address else []))
        ],
    )


def owner() -> str | None:
    """The mark of the lab whose controller's interface is in this network namespace; None if there is none."""
    shown = run(["ip", "-json", "link", "show", INTERFACE], check=False)
    return str(json.loads(shown.stdout)[0].get("ifalias", "")) if shown.status == 0 else None


def unwire(mark: str) -> None:
    """Remove the controller's interface if it is this lab's. The others disappear with the lab's processes."""
    # Without a mark it is left from a lab that was killed before it set the mark.
    if owner() in {mark, ""}:
        run(["ip", "link", "delete", INTERFACE], check=False)


def _addresses(host: LabHost, virtual: Sequence[LabHost], workloads: str) -> list[str]:
    own = "eth0"
    lines = []
    if virtual:
        own = VM_BRIDGE
        lines += [f"link add {VM_BRIDGE} mtu {MTU} type bridge", f"link set eth0 master {VM_BRIDGE} up"]
        for machine in virtual:
            lines.append(f"tuntap add {machine.name} mode tap")
            lines.append(f"link set {machine.name} master {VM_BRIDGE} mtu {MTU} up")
    lines += [f"address add {host.address}/{UNDERLAY.prefixlen} dev {own}", f"link set {own} up"]
    if host.clients_address:
        lines += [f"address add {host.clients_address}/{CLIENTS.prefixlen} dev eth1", "link set eth1 up"]
        if not host.tunnel_address:
            lines.append(f"route add {workloads} via {CLIENTS[1]}")
    elif host.docker:
        # Packets from clients come through the tunnel. All other packets of a workload leave through the gateway, too.
        lines.append(f"route add {CLIENTS} dev {own}")
    return lines


def _ip(pid: int, commands: list[str]) -> None:
    run(["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
