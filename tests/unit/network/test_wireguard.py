"""WireGuard's configuration, written out of an inventory."""

from __future__ import annotations

from importlib import resources
from ipaddress import IPv4Address
from pathlib import Path

from sealift.inventory import Host, Inventory
from sealift.network import wireguard
from sealift_agent.constants import INTERFACE


def host(number: int) -> Host:
    return Host(
        address=f"192.0.2.{number}",
        host_key="ssh-ed25519 AAAA",
        key_file=Path("/key"),
        tunnel_address=IPv4Address(f"10.78.0.{number}"),
        wireguard_key=f"key{number}=",
    )


INVENTORY = Inventory(hosts={"a": host(10), "b": host(20)}, gateway=host(1))


def test_the_gateway_has_each_host_as_its_peer_for_the_tunnel_address_only() -> None:
    text = wireguard.render("private=", wireguard.gateway_peers(INVENTORY))
    assert text == (
        "[Interface]\nPrivateKey = private=\nListenPort = 51820\n\n"
        "[Peer]\nPublicKey = key10=\nAllowedIPs = 10.78.0.10/32\nEndpoint = 192.0.2.10:51820\n\n"
        "[Peer]\nPublicKey = key20=\nAllowedIPs = 10.78.0.20/32\nEndpoint = 192.0.2.20:51820\n"
    )


def test_a_host_has_the_gateway_for_everything_and_the_others_for_themselves() -> None:
    peers = wireguard.host_peers(INVENTORY, "a")
    assert [(peer.public_key, peer.allowed_ips) for peer in peers] == [
        ("key1=", ("0.0.0.0/0",)),
        ("key20=", ("10.78.0.20/32",)),
    ]


def test_the_environment_of_the_network_script_is_plain_assignments() -> None:
    lines = wireguard.environment(INVENTORY, INVENTORY.host("a"), role="host").splitlines()
    assert "TUNNEL_ADDRESS=10.78.0.10" in lines
    assert "WORKLOADS=10.77.0.0/16" in lines
    assert all(line.partition("=")[0].isupper() for line in lines)


def test_what_makes_the_interface_gives_it_the_name_that_all_others_know() -> None:
    script = resources.files("sealift.machine") / "files/usr/libexec/sealift/network"
    assert f"\ninterface={INTERFACE}\n" in script.read_text()
