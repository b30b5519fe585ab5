"""What a dishonest provider does in the lab, and what the source's interfaces count meanwhile."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.errors import HostUnreachable
from sealift.host import ssh
from sealift.keys import make_ssh_key
from sealift.lab import processors
from sealift.lab.lab import lab_dir
from sealift.processor.emulated.client import EmulatedProcessor
from sealift.processor.emulated.profile import Profile
from sealift.processor.interface import SnpLaunch
from sealift.processor.wire import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.processor.measured import MeasuredTree

GUEST_PORT = 7741
IMPOSTOR_PORT = 7742
HANDSHAKE_BYTES = 148 + 28
"""A WireGuard handshake initiation with its UDP and IPv4 headers: the longest message that carries no data."""


def chip(host: str) -> EmulatedProcessor:
    """The emulated processor beside a host."""
    place = lab_dir() / host
    return EmulatedProcessor(place / "host", processors.guest_socket(place))


@contextmanager
def relaunched(
    host: str, launch: SnpLaunch | None = None, tree: MeasuredTree | None = None
) -> Iterator[None]:
    """The host was launched otherwise than the owner thinks."""
    processor = chip(host)
    processor.reset()
    processor.begin(launch or SnpLaunch(), tree or processors.tree())
    processor.finish()
    try:
        yield
    finally:
        processor.reset()
        processors.launch(processor)


@contextmanager
def configured(host: str, **settings: Any) -> Iterator[None]:
    """The chip is another than the owner thinks."""
    chip(host).configure(**settings)
    try:
        yield
    finally:
        chip(host).configure(**to_json(Profile()))


@contextmanager
def impostor(hosts: Hosts, host: str, *, redirect: bool = True, **behaviour: Any) -> Iterator[None]:
    """Somebody else answers on a host in place of the guest's own program; without `redirect` only beside it."""
    script = (Path(__file__).parent / "impostor.py").read_text()
    hosts[host].put("/run/impostor.py", script.encode())
    channel = hosts[host].open(["python3", "/run/impostor.py", str(IMPOSTOR_PORT), json.dumps(behaviour)])
    assert channel.makefile("rb").readline() == b"ready\n"
    # Whom the impostor itself asks on this host is the honest program: only SSH's connections are led astray.
    rule = [*("-o", "lo", "-p", "tcp", "--sport", "1024:65535", "--dport", str(GUEST_PORT))]
    rule += ["-j", "REDIRECT", "--to-ports", str(IMPOSTOR_PORT)]
    try:
        if redirect:
            hosts[host].run(["iptables", "-w", "-t", "nat", "-A", "OUTPUT", *rule])
        yield
    finally:
        if redirect:
            hosts[host].run(["iptables", "-w", "-t", "nat", "-D", "OUTPUT", *rule], check=False)
        hosts.sh(
            host,
            'kill $(ss -Hltnp "sport = :$1" | sed -n "s/.*pid=\\([0-9]*\\).*/\\1/p")',
            str(IMPOSTOR_PORT),
        )
        hosts.sh(host, "rm -f /run/impostor.py")
        channel.close()


@contextmanager
def other_ssh_key(hosts: Hosts, host: str) -> Iterator[None]:
    """SSH on a host shows another key: what a man in the middle has to do, who does not know the host's own."""
    path = "/etc/ssh/ssh_host_ed25519_key"
    honest = hosts[host].run(["cat", path]).stdout
    restart = "kill -HUP $(cat /run/sshd.pid)"
    other = make_ssh_key()
    public = hosts.sh(host, f"cat {path}.pub")
    hosts[host].put(path, other.private.encode(), mode=0o600)
    hosts.sh(host, restart)
    until_shown(hosts, host, other.public)
    try:
        yield
    finally:
        hosts[host].put(path, honest.encode(), mode=0o600)
        hosts.sh(host, restart)
        until_shown(hosts, host, public)


def until_shown(hosts: Hosts, host: str, key: str) -> None:
    """Wait until a host's SSH server shows this key."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(HostUnreachable):
            stranger = ssh.meet(host, hosts.inventory.host(host))
            stranger.close()
            if stranger.shown_key == key:
                return
        time.sleep(0.2)
    raise AssertionError(f"{host} does not show {key}")


@contextmanager
def counting_at_source(hosts: Hosts, *addresses: str) -> Iterator[dict[str, int]]:
    """What leaves the source for these addresses while the block runs, in bytes.

    Of WireGuard's own packets only those are counted that are long enough to carry data; what an impostor on the
    source answers is not the container's.
    """
    rules = "".join(
        f"add rule inet counted out ip daddr {address} udp dport 51820 meta length <= {HANDSHAKE_BYTES} accept\n"
        f"add rule inet counted out ip daddr {address} counter\n"
        for address in addresses
    )
    rules = f"add rule inet counted out tcp sport {IMPOSTOR_PORT} accept\n{rules}"
    table = (
        "add table inet counted\nadd chain inet counted out { type filter hook postrouting priority 300; }\n"
    )
    hosts["source"].run(["nft", "-f", "-"], stdin=(table + rules).encode())
    counted: dict[str, int] = {}
    try:
        yield counted
        listed = json.loads(hosts["source"].run(["nft", "-j", "list", "table", "inet", "counted"]).stdout)
        for entry in listed["nftables"]:
            for part in entry.get("rule", {}).get("expr", []):
                if "counter" in part:
                    match = entry["rule"]["expr"][0]["match"]["right"]
                    counted[str(match)] = int(part["counter"]["bytes"])
    finally:
        hosts["source"].run(["nft", "delete", "table", "inet", "counted"])
