"""A container's network namespace: addresses of one link go on, and what somebody has set there is not lost unsaid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hosts import untouched

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

ON_ONE_LINK = """
import socket, sys, time

def own():
    for line in open("/proc/net/if_inet6"):
        address, number, _, _, flags, name = line.split()
        if name == "eth0" and address.startswith("fe80") and not int(flags, 16) & 0x40:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address)), int(number, 16)

while not own():
    time.sleep(0.1)
address, number = own()
listener = socket.socket(socket.AF_INET6)
listener.bind((address, 0, 0, number))
listener.listen()
near = socket.socket(socket.AF_INET6)
near.connect((address, listener.getsockname()[1], 0, number))
far = listener.accept()[0]
near.settimeout(5)
count = 0
while True:
    near.sendall(b"x")
    far.sendall(far.recv(1))
    near.recv(1)
    count += 1
    new = socket.socket(socket.AF_INET6)
    new.connect(listener.getsockname()[:2] + (0, own()[1]))
    listener.accept()
    print(count, own()[0] == address, flush=True)
    time.sleep(0.05)
"""


def test_connections_of_link_local_addresses_go_on_there_and_back(hosts: Hosts) -> None:
    hosts.python("box", ON_ONE_LINK, options=["--sysctl", "net.ipv6.conf.all.disable_ipv6=0"])
    for source, destination in (("source", "destination"), ("destination", "source")):
        hardware = hosts.docker(source, "exec", "box", "cat", "/sys/class/net/eth0/address")
        hosts.engine("box", source=source, destination=destination)
        before = hosts.docker(destination, "logs", "--tail", "1", "box").split()
        hosts.sh(destination, "sleep 0.5")
        after = hosts.docker(destination, "logs", "--tail", "1", "box").split()
        assert int(after[0]) > int(before[0]), "it goes on"
        assert after[1] == "True", "the address is the same"
        assert hosts.docker(destination, "exec", "box", "cat", "/sys/class/net/eth0/address") == hardware
        asks = hosts.docker(destination, "exec", "box", "cat", "/proc/sys/net/ipv6/conf/eth0/accept_dad")
        assert asks == "1"


def test_what_was_set_inside_is_refused_by_name_and_moves_once_it_is_taken_back(hosts: Hosts) -> None:
    hosts.python("box", "import time; time.sleep(1e9)", options=["--cap-add", "NET_ADMIN"])
    pid = hosts.docker("source", "inspect", "--format", "{{.State.Pid}}", "box")
    enter = f"nsenter --net=/proc/{pid}/ns/net"
    hosts.sh(
        "source", f"{enter} ip address add 10.9.9.9/32 dev lo; {enter} ip rule add from 10.9.9.9 table 77"
    )
    with untouched(hosts, "box"):
        refused = hosts.refuse("box")
    (reason,) = refused.reasons
    assert "the address 10.9.9.9/32 on lo, the routing rule 32765 from 10.9.9.9" in reason
    assert "take it back there" in reason
    hosts.sh("source", f"{enter} ip address del 10.9.9.9/32 dev lo; {enter} ip rule del from 10.9.9.9")
    for source, destination in (("source", "destination"), ("destination", "source")):
        hosts.engine("box", source=source, destination=destination)
