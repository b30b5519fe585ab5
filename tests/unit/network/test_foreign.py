"""What a host has of the tunnel's and the workloads' networks: told from what is Sealift's own."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from sealift.inventory import Network
from sealift.network.foreign import claims

NETWORK = Network(tunnel=IPv4Network("10.78.0.0/24"), workloads=IPv4Network("10.77.0.0/16"))


def link(name: str, *prefixes: str) -> dict[str, Any]:
    pairs = [prefix.split("/") for prefix in prefixes]
    info = [{"family": "inet", "local": local, "prefixlen": int(length)} for local, length in pairs]
    return {"ifname": name, "addr_info": info}


def kernels(dst: str, device: str, **more: Any) -> dict[str, Any]:
    return {"dst": dst, "dev": device, "protocol": "kernel", "scope": "link", "flags": [], **more}


ADDRESSES = [
    link("lo", "127.0.0.1/8"),
    link("eth0", "198.18.0.20/24"),
    link("sealift-wg", "10.78.0.20/24"),
    link("docker0", "172.17.0.1/16"),
    link("sealift-wl", "10.77.0.1/16"),
    {},  # an older iproute2 prints this of what it filters out
]
ROUTES = [
    {"dst": "default", "dev": "sealift-wg", "table": "77", "scope": "link", "flags": []},
    {"type": "throw", "dst": "10.77.0.0/16", "table": "77", "flags": []},
    {"dst": "10.78.0.0/24", "dev": "sealift-wg", "table": "78", "prefsrc": "10.78.0.20", "flags": []},
    {"type": "unreachable", "dst": "10.78.0.0/24", "table": "78", "metric": 4278198272, "flags": []},
    {"dst": "default", "gateway": "198.18.0.1", "dev": "eth0", "flags": []},
    kernels("10.77.0.0/16", "sealift-wl", prefsrc="10.77.0.1"),
    kernels("10.78.0.0/24", "sealift-wg", prefsrc="10.78.0.20"),
    kernels("172.17.0.0/16", "docker0"),
    kernels("198.18.0.0/24", "eth0"),
    {"dst": "198.19.0.0/24", "dev": "eth0", "scope": "link", "flags": []},
    kernels("10.78.0.20", "sealift-wg", type="local", table="local"),
    kernels("10.78.0.255", "sealift-wg", type="broadcast", table="local"),
    kernels("127.0.0.0/8", "lo", type="local", table="local"),
]
RULES = [
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 76, "src": "all", "dst": "10.78.0.0", "dstlen": 24, "table": "78"},
    {"priority": 77, "src": "10.77.0.0", "srclen": 16, "table": "77"},
    {"priority": 32766, "src": "all", "table": "main"},
    {"priority": 32767, "src": "all", "table": "default"},
]


def found(
    addresses: list[dict[str, Any]] | None = None,
    routes: list[dict[str, Any]] | None = None,
    rules: list[dict[str, Any]] | None = None,
) -> list[str]:
    """What is found when these come to what a host of Sealift has."""
    return list(
        claims(ADDRESSES + (addresses or []), ROUTES + (routes or []), RULES + (rules or []), NETWORK)
    )


def test_what_is_sealifts_own_is_no_claim() -> None:
    assert found() == []
    assert list(claims(ADDRESSES[:2], [ROUTES[4], ROUTES[8]], [RULES[0], *RULES[3:]], NETWORK)) == []


@pytest.mark.parametrize(
    "prefix",
    [
        *("10.78.0.1/32", "10.78.0.129/25", "10.78.0.5/24", "10.77.1.1/30", "10.0.0.1/8", "10.78.9.9/16"),
        *("1.2.3.4/1", "1.2.3.4/0", "10.78.0.7/31"),
    ],
)
def test_an_address_that_overlaps_is_named(prefix: str) -> None:
    assert found([link("eth1", prefix)]) == [f"the address {prefix} on eth1"]


@pytest.mark.parametrize("prefix", ["10.79.0.1/24", "10.78.1.1/24", "192.0.2.1/24", "10.76.0.1/16"])
def test_an_address_beside_them_is_not(prefix: str) -> None:
    assert found([link("eth1", prefix)]) == []


def test_the_other_end_of_a_link_counts() -> None:
    one = {"family": "inet", "local": "192.0.2.1", "address": "10.78.0.1", "prefixlen": 32}
    assert len(found([{"ifname": "eth0", "addr_info": [one]}])) == 1


@pytest.mark.parametrize(
    "route",
    [
        {"dst": "10.78.0.1", "gateway": "198.18.0.4", "dev": "eth0"},
        {"dst": "10.77.128.0/17", "gateway": "198.18.0.4", "dev": "eth0"},
        {"dst": "10.0.0.0/8", "dev": "eth0"},
        {"dst": "0.0.0.0/1", "dev": "eth0"},
        {"dst": "10.78.0.0/24", "dev": "eth0", "table": "78"},
        {"type": "local", "dst": "default", "dev": "lo", "table": "local"},
        {"type": "blackhole", "dst": "10.78.0.1"},
        {"type": "unreachable", "dst": "10.78.0.1"},
        {"type": "multicast", "dst": "10.78.0.0/25", "dev": "eth0", "protocol": "kernel"},
    ],
)
def test_a_route_that_overlaps_is_named(route: dict[str, Any]) -> None:
    (sentence,) = found(routes=[route])
    assert sentence.startswith(f"the route {route['dst']} in the table {route.get('table', 'main')}")


@pytest.mark.parametrize("dst", ["default", "10.79.0.0/16", "128.0.0.0/1", "172.16.0.0/12"])
def test_a_route_elsewhere_is_not(dst: str) -> None:
    assert found(routes=[{"dst": dst, "dev": "eth0", "gateway": "198.18.0.4"}]) == []


@pytest.mark.parametrize(
    "rule",
    [
        {"priority": 5, "src": "all", "dst": "10.78.0.1", "table": "main"},
        {"priority": 5, "src": "all", "table": "9"},
        {"priority": 5, "src": "all", "table": "local"},
        {"priority": 70, "src": "all", "table": "77"},
        {"priority": 70, "src": "all", "dst": "10.78.0.0", "dstlen": 25, "table": "78"},
        {"priority": 70, "src": "10.78.0.0", "srclen": 24, "table": "78"},
        {"priority": 70, "src": "all", "action": "unreachable"},
    ],
)
def test_a_policy_rule_that_is_not_ours_is_named(rule: dict[str, Any]) -> None:
    assert len(found(rules=[rule])) == 1
