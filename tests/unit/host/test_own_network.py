"""What somebody has set in a network namespace is named; what Docker and the kernel put there is not."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent.network import own

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = ("ip", "nft", "tc", "unshare")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}"),
]

UP = """
mount -t proc proc /proc && mount --bind /proc/sys /proc/sys
ip link set lo up
ip link add eth0 address 02:42:0a:4d:00:09 type veth peer name other netns "$1"
ip address add 10.77.0.9/16 dev eth0
ip link set eth0 up
ip route add default via 10.77.0.1
echo ready
exec cat
"""


def described(**sysctls: str) -> dict[str, Any]:
    network = {"IPAddress": "10.77.0.9", "Gateway": "10.77.0.1", "MacAddress": "02:42:0a:4d:00:09"}
    return {
        "NetworkSettings": {"Networks": {"sealift": network}},
        "HostConfig": {"Sysctls": {f"net.ipv4.{name}": value for name, value in sysctls.items()}},
    }


@pytest.fixture
def first() -> Iterator[int]:
    """A process in a namespace as Docker fills it, with /proc/sys as Docker mounts it."""
    with (
        subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as other,
        subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-ec", UP, "sh", str(other.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()
        other.kill()


def inside(first: int, script: str) -> None:
    subprocess.run(["nsenter", f"--net=/proc/{first}/ns/net", "sh", "-ec", script], check=True)


def test_what_docker_and_the_kernel_have_made_is_nothing(first: int) -> None:
    assert own.added(first, described()) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("ip address add 10.9.9.9/32 dev lo", "the address 10.9.9.9/32 on lo"),
        ("ip address add 10.77.0.10/16 dev eth0", "the address 10.77.0.10/16 on eth0"),
        ("ip -6 address add fd00::9/64 dev eth0 nodad", "the address fd00::9/64 on eth0"),
        ("ip route add blackhole 10.66.0.0/16", "the blackhole route 10.66.0.0/16"),
        ("ip route add 10.67.0.0/16 via 10.77.0.2 table 7", "the route 10.67.0.0/16 in the table 7"),
        ("ip route replace default via 10.77.0.2", "the route default"),
        ("ip rule add from 10.9.9.9 table 77", "the routing rule 32765 from 10.9.9.9"),
        (
            "ip neighbour add 10.77.0.3 lladdr 02:00:00:00:00:03 dev eth0 nud permanent",
            "the neighbour 10.77.0.3 on eth0",
        ),
        ("ip link add more type veth peer name most", "the interface most"),
        (
            "nft 'add table inet mine; add chain inet mine c; add rule inet mine c drop'",
            "rules of the firewall (table inet mine)",
        ),
        (
            "nft 'add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; policy drop; }'",
            "rules of the firewall (table ip filter)",
        ),
        ("ip link set eth0 address 02:42:0a:4d:00:10", "the interface eth0"),
    ],
)
def test_what_somebody_has_set_is_named(first: int, script: str, said: str) -> None:
    inside(first, script)
    assert said in own.added(first, described())


def test_the_resolver_that_docker_puts_there_is_docker_s(first: int) -> None:
    inside(
        first,
        "nft 'add table ip nat; add chain ip nat DOCKER_OUTPUT; "
        "add chain ip nat OUTPUT { type nat hook output priority -100; }; "
        "add rule ip nat OUTPUT ip daddr 127.0.0.11 counter jump DOCKER_OUTPUT; "
        "add rule ip nat DOCKER_OUTPUT ip daddr 127.0.0.11 accept'",
    )
    assert own.added(first, described()) == []
    inside(first, "nft 'add rule ip nat OUTPUT ip daddr 10.1.1.1 drop'")
    assert own.added(first, described()) == ["rules of the firewall (table ip nat)"]


def test_settings_are_compared_where_the_container_may_write_them(first: int) -> None:
    inside(
        first, "echo 77 >/proc/sys/net/ipv4/tcp_keepalive_time; echo 33 >/proc/sys/net/ipv4/tcp_fin_timeout"
    )
    assert own.added(first, described(tcp_fin_timeout="33")) == []
    subprocess.run(["nsenter", f"--mount=/proc/{first}/ns/mnt", "umount", "/proc/sys"], check=True)
    assert own.added(first, described(tcp_fin_timeout="33")) == ["net.ipv4.tcp_keepalive_time = 77"]
