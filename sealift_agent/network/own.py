"""What a container's network namespace has besides what Docker puts there: set by somebody, inside or from the host.

CRIU does not dump a namespace that another program fills, so it would be lost. Docker's description says what belongs
there: the addresses, one gateway and one interface for each network.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import proc
from . import inside, sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FALLBACK = (
    *("erspan0", "gre0", "gretap0", "ip6_vti0", "ip6gre0", "ip6gretap0"),
    *("ip6tnl0", "ip_vti0", "sit0", "tunl0"),
)
"""Interfaces that the kernel makes in each namespace (`net.core.fb_tunnels_only_for_init_net`)."""

KERNEL = {(0, "local"), (32766, "main"), (32767, "default")}
"""The routing rules of a new namespace (ip-rule(8))."""

DOCKER = "DOCKER_"
"""How the chains begin that Docker makes in a namespace, for its resolver (moby, libnetwork/resolver_unix.go)."""

LINK_LOCAL = "fe80::"
SETTINGS = Path("/proc/sys/net")


class Given(NamedTuple):
    """What Docker has put into the namespace. `addresses`, `gateways` and `hardware` of its interfaces."""

    addresses: set[str]
    gateways: set[str]
    hardware: set[str]


def given(described: Mapping[str, Any]) -> Given:
    """By Docker's description of a container."""
    networks = (described["NetworkSettings"]["Networks"] or {}).values()
    return Given(
        _said(networks, "IPAddress", "GlobalIPv6Address"),
        _said(networks, "Gateway", "IPv6Gateway"),
        _said(networks, "MacAddress"),
    )


def _said(networks: Any, *names: str) -> set[str]:
    return {network[name] for network in networks for name in names if network.get(name)}


def added(first: int, described: Mapping[str, Any]) -> list[str]:
    """What is in the namespace of a container's `first` process besides that, each in a few words. OSError."""
    namespace, expected = f"/proc/{first}/ns/net", given(described)
    found = inside.run(namespace, lambda: list(_added(expected)))
    if not any(
        mount.point == "/proc/sys" for mount in proc.mounts(first)
    ):  # Docker mounts it so that none is written
        mine = inside.run(namespace, _settings)
        handle, fresh = inside.run_in_new(lambda: _fresh(described["HostConfig"].get("Sysctls") or {}))
        os.close(handle)
        found += [f"{name} = {mine[name]}" for name in sorted(mine) if mine[name] != fresh.get(name)]
    return found


def _added(expected: Given) -> Iterator[str]:
    for link in _ip("address", "show"):
        yield from _of_link(link, expected)
    for family in ("-4", "-6"):
        yield from _ways(family, expected.gateways)
    for neighbour in _ip("neighbour", "show", "nud", "permanent"):
        yield f"the neighbour {neighbour['dst']} on {neighbour['dev']}"
    for queue in json.loads(_shown("tc", "-json", "qdisc", "show") or "[]"):
        if queue.get("handle") != "0:" and queue["kind"] != "noqueue":
            yield f"the queueing discipline {queue['kind']} on {queue['dev']}"
    for kind in ("policy", "state"):
        if _shown("ip", "xfrm", kind):
            yield f"IPsec ({kind})"
    yield from _filters()


def _ways(family: str, gateways: set[str]) -> Iterator[str]:
    for route in _ip(family, "route", "show", "table", "all"):
        usual = route["dst"] == "default" and route.get("gateway") in gateways
        if route.get("protocol") not in {"kernel", "ra"} and not usual:
            kind = f"{route['type']} route" if "type" in route else "route"
            where = f" in the table {route['table']}" if "table" in route else ""
            yield f"the {kind} {route['dst']}{where}"
    for rule in _ip(family, "rule", "show"):
        if (rule["priority"], rule.get("table")) not in KERNEL or rule.get("src") != "all":
            yield f"the routing rule {rule['priority']} from {rule.get('src')}"


def _of_link(link: Mapping[str, Any], expected: Given) -> Iterator[str]:
    name, flags = link["ifname"], link["flags"]
    docker = link.get("address") in expected.hardware
    if not docker and name not in FALLBACK and "LOOPBACK" not in flags:
        yield f"the interface {name}"
        return
    for entry in link.get("addr_info", ()):
        local = entry["local"]
        usual = local in expected.addresses or (local.startswith(LINK_LOCAL) and docker)
        if not usual and not ("LOOPBACK" in flags and local in {"127.0.0.1", "::1"}):
            yield f"the address {local}/{entry['prefixlen']} on {name}"


def _filters() -> Iterator[str]:
    """Tables of nftables with rules in other chains than Docker's; those of iptables are among them, or are older."""
    tables = set()
    for one in json.loads(_shown("nft", "--json", "list", "ruleset") or "{}").get("nftables", ()):
        rule, chain = one.get("rule"), one.get("chain")
        if rule and not rule["chain"].startswith(DOCKER) and not _leads_to_docker(rule):
            tables.add(f"{rule['family']} {rule['table']}")
        if chain and chain.get("policy", "accept") != "accept":
            tables.add(f"{chain['family']} {chain['table']}")
    yield from (f"rules of the firewall (table {table})" for table in sorted(tables))
    for family in ("", "6"):
        names = Path(f"/proc/thread-self/net/ip{family}_tables_names")
        for table in names.read_text().split() if names.exists() else ():
            if table != "nat":
                yield f"rules of the firewall (iptables, table {table})"


def _leads_to_docker(rule: Mapping[str, Any]) -> bool:
    jumps = [part["jump"]["target"] for part in rule["expr"] if "jump" in part]
    return bool(jumps) and all(target.startswith(DOCKER) for target in jumps)


def _fresh(sysctls: Mapping[str, str]) -> dict[str, str]:
    """The settings of a new namespace with these."""
    networks = {name: value for name, value in sysctls.items() if name.startswith("net.")}
    sandbox.configure(networks, complete=False)
    return _settings()


def _settings() -> dict[str, str]:
    """Those that can be written, by their names, without those of single interfaces."""
    found = {}
    for place, _, names in os.walk(SETTINGS):
        above = Path(place)
        if above.parent.name in {"conf", "neigh"} and above.name not in {"all", "default"}:
            continue
        for name in names:
            path = above / name
            if path.stat().st_mode & 0o200:
                try:
                    value = path.read_text()
                except OSError:
                    continue
                found[".".join(path.relative_to(SETTINGS.parent).parts)] = " ".join(value.split())
    return found


def _ip(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_shown("ip", "-json", *words) or "[]")
    return [one for one in found if one]


def _shown(*words: str) -> str:
    """What a program prints in the namespace of this thread. OSError if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words[:2])}: {' '.join(done.stderr.split())[:200]}")
    return done.stdout.strip()
