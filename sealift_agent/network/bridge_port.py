"""The host's end of a container's veth pair, which is a port of the bridge. Detaching it stops all traffic.

It takes one system call, and starts no program. Nothing inside the container notices, since its link stays up. No rule
can be forgotten: packets from the container reach a port that belongs to no bridge and has another hardware address, so
the kernel drops them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from ..wire import AgentError

SIOCGIFADDR = 0x8915
SIOCBRADDIF = 0x89A2
SIOCBRDELIF = 0x89A3
"""linux/sockios.h"""

DEAF = {"arp_ignore": "8", "forwarding": "0"}
"""Documentation/networking/ip-sysctl.rst. A port in a bridge needs neither, since the bridge answers and forwards."""

ASKED_AFTER_S = (0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)

ETH_P_IP, ETH_P_ARP, ARP_REQUEST = 0x0800, 0x0806, 1
"""linux/if_ether.h, linux/if_arp.h"""


class BridgePort:
    """`port` is the name of the host's end of the container's veth pair. `bridge` is the bridge that it belongs to."""

    def __init__(self, port: str, bridge: str) -> None:
        self.port = port
        self.bridge = bridge

    def detach(self) -> None:
        """Take the port out of its bridge, and let the kernel answer nothing at it.

        Otherwise the kernel would answer at this port for every address that it has. A restored container that asks for
        its gateway would get this port's hardware address, and its packets would be lost. Without an answer it waits.
        """
        if self.is_in():
            for setting, value in DEAF.items():
                Path(f"/proc/sys/net/ipv4/conf/{self.port}/{setting}").write_text(value)
            self._call(SIOCBRDELIF)

    def attach(self) -> None:
        """Put the port into its bridge again."""
        if not self.is_in():
            self._call(SIOCBRADDIF)

    def resolve(self, address: str) -> None:
        """Ask for the container's hardware address from the bridge, so that both learn the other's address at once.

        A restored socket may have sent something before the port was back. Its question for the bridge's address was
        lost, and the kernel would ask again only after a second (`neigh/*/retrans_time_ms`).
        """
        hardware = bytes.fromhex(
            Path(f"/sys/class/net/{self.bridge}/address").read_text().strip().replace(":", "")
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            answer = fcntl.ioctl(control, SIOCGIFADDR, struct.pack("16s24x", self.bridge.encode()))
        own, other = answer[20:24], socket.inet_aton(address)
        frame = b"\xff" * 6 + hardware + struct.pack(">HHHBBH", ETH_P_ARP, 1, ETH_P_IP, 6, 4, ARP_REQUEST)
        question = frame + hardware + own + bytes(6) + other
        threading.Thread(target=self._ask, args=(question,), daemon=True, name="introduction").start()

    def _ask(self, question: bytes) -> None:
        """Ask in a thread, since closing such a socket takes the kernel ten milliseconds (packet_release).

        It asks several times: a bridge that had no port drops packets until the kernel has noticed the port
        (net/core/link_watch.c). The host's own question for the container's address would be dropped then, too.
        """
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            for pause_s in ASKED_AFTER_S:
                time.sleep(pause_s)
                with contextlib.suppress(OSError):  # the container and its network may have ended by now
                    wire.sendto(question, (self.bridge, 0))

    def is_in(self) -> bool:
        """Whether the port belongs to a bridge."""
        return Path(f"/sys/class/net/{self.port}/brport").exists()

    def _call(self, request: int) -> None:
        index = socket.if_nametoindex(self.port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, request, struct.pack("16si20x", self.bridge.encode(), index))


def find(namespace: str, address: str, bridge: str) -> BridgePort:
    """The port of the interface that has `address` in a network namespace (a path under /proc or /var/run)."""
    for interface in _shown(["nsenter", f"--net={namespace}", "ip", "-json", "address", "show"]):
        if any(entry.get("local") == address for entry in interface.get("addr_info", [])):
            return BridgePort(socket.if_indextoname(interface["link_index"]), bridge)
    raise AgentError(f"no interface of the container has {address}")


def outer_ends(namespace: str) -> list[str]:
    """The host's ends of the veth pairs whose other end is in that network namespace."""
    links = ["ip", "-json", "-details", "link", "show", "type", "veth"]
    inside = {
        (link["ifindex"], link.get("link_index"))
        for link in _shown(["nsenter", f"--net={namespace}", *links])
    }
    return [link["ifname"] for link in _shown(links) if (link.get("link_index"), link["ifindex"]) in inside]


def delete(port: str) -> None:
    """Delete the veth pair of that port, if it is still there."""
    subprocess.run(["ip", "link", "delete", port], check=False, capture_output=True)


def _shown(words: list[str]) -> list[dict[str, Any]]:
    """What `ip` shows as JSON."""
    shown = subprocess.run(words, capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        raise AgentError(f"the container's interfaces can't be listed: {shown.stderr.strip()}")
    found: list[dict[str, Any]] = json.loads(shown.stdout or "[]")
    return found
