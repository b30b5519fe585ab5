"""What a lab is before anything of it runs: its inventory, and the keys and files that make its hosts themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from sealift.inventory import Host, Inventory, LabFacts, Network, Vm
from sealift.keys import SshKey, WireGuardKey, make_ssh_key, make_wireguard_key
from sealift.lab.layout import DESTINATION, GATEWAY, HOSTS, SOURCE, TUNNEL_MTU, LabHost
from sealift.network import wireguard

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["vm", "netns"]
Asked = Literal["snp", "none"]
POLICY = "policy.toml"


@dataclass(frozen=True)
class HostKeys:
    """What makes a host of the lab itself."""

    ssh: SshKey
    wireguard: WireGuardKey | None


@dataclass(frozen=True)
class Lab:
    """A lab in the making: its inventory and the secrets that its hosts get."""

    inventory: Inventory
    keys: dict[str, HostKeys]
    login: SshKey

    def with_facts(self, facts: LabFacts) -> Lab:
        """The same lab, saying something else of itself."""
        return replace(self, inventory=self.inventory.model_copy(update={"lab": facts}))

    def proves_itself(self, host: LabHost) -> bool:
        """Whether nobody knows a host's keys before it has proved them."""
        return self.inventory.machine(host.name).vm is not None

    def files(self, host: LabHost) -> dict[str, tuple[bytes, int]]:
        """The files that make a host the one that the inventory names: path to content and mode."""
        own = self.keys[host.name]
        made = {
            "/etc/hostname": (f"{host.name}\n".encode(), 0o644),
            "/etc/hosts": (f"127.0.0.1 localhost {host.name}\n".encode(), 0o644),
            "/root/.ssh/authorized_keys": (f"{self.login.public}\n".encode(), 0o600),
        }
        if self.proves_itself(host):
            return made  # its keys it makes itself, and what it needs it gets once it has proved them
        made["/etc/ssh/ssh_host_ed25519_key"] = (own.ssh.private.encode(), 0o600)
        if own.wireguard:
            gateway = host == GATEWAY
            inventory = self.inventory
            peers = (
                wireguard.gateway_peers(inventory) if gateway else wireguard.host_peers(inventory, host.name)
            )
            entry = inventory.machine(host.name)
            environment = wireguard.environment(inventory, entry, role="gateway" if gateway else "host")
            configuration = wireguard.render(own.wireguard.private, peers)
            made["/etc/sealift/network.env"] = (environment.encode(), 0o644)
            made["/etc/sealift/wireguard.conf"] = (configuration.encode(), 0o600)
        return made


def plan(kind: Kind, directory: Path, evidence: Asked) -> Lab:
    """Keys for everybody and the inventory that names them. Writes the key to log in with.

    With evidence, Docker hosts have none of these keys: they make their own and prove them.
    """
    login = make_ssh_key()
    key_file = directory / "id_ed25519"
    key_file.touch(mode=0o600)
    key_file.write_text(login.private)
    keys = {
        h.name: HostKeys(make_ssh_key(), make_wireguard_key() if h.tunnel_address else None) for h in HOSTS
    }

    def entry(host: LabHost) -> Host:
        own = keys[host.name]
        if host.docker and evidence == "snp":
            return Host(
                address=str(host.address),
                key_file=key_file,
                tunnel_address=host.tunnel_address,
                vm=Vm(evidence="snp", policy=directory / POLICY),
            )
        return Host(
            address=str(host.address),
            host_key=own.ssh.public,
            key_file=key_file,
            tunnel_address=host.tunnel_address,
            wireguard_key=own.wireguard.public if own.wireguard else None,
        )

    hosts = {host.name: entry(host) for host in HOSTS}
    inventory = Inventory(
        hosts={SOURCE.name: hosts["source"], DESTINATION.name: hosts["destination"]},
        gateway=hosts["gateway"],
        provider=hosts["provider"],
        client=hosts["client"],
        network=Network(mtu=TUNNEL_MTU),
        lab=LabFacts(kind=kind, accelerator="none"),
        state=directory / "state",
    )
    return Lab(inventory, keys, login)
