"""The plan of a lab before it runs: its inventory, and the keys and files of its hosts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from sealift.errors import UnusableInput
from sealift.inventory import Host, Inventory, LabFacts, Network, Vm, Worker
from sealift.keys import SshKey, WireGuardKey, make_ssh_key, make_wireguard_key
from sealift.lab.layout import (
    DATA_DISK_MIB,
    DESTINATION,
    GATEWAY,
    HOSTS,
    MEMORY_MIB,
    MTU,
    PROVIDER,
    SOURCE,
    TUNNEL_MTU,
    VCPUS,
    LabHost,
)
from sealift.machine.recipe import CLOUD, KERNELS, RECIPE, RECIPES, Recipe, recipe
from sealift.network import wireguard
from sealift.provider.gate import authorized_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Kind = Literal["vm", "netns"]
Asked = Literal["snp", "sev", "none"]
POLICY = "policy.toml"
IMAGE = "sealift"
"""Name of the image at the provider."""

PROVIDER_GATE = ["/usr/bin/python3", "-m", "sealift.provider", "gate"]


@dataclass(frozen=True)
class HostKeys:
    """The keys of one host."""

    ssh: SshKey
    wireguard: WireGuardKey | None


@dataclass(frozen=True)
class Lab:
    """A lab that does not run yet: its inventory and the secrets of its hosts."""

    inventory: Inventory
    keys: dict[str, HostKeys]
    login: SshKey
    provider_login: SshKey

    def with_accelerator(self, accelerator: str) -> Lab:
        """A copy of the lab whose inventory says what runs its VMs."""
        facts = self.inventory.lab
        changed = facts.model_copy(update={"accelerator": accelerator}) if facts else None
        return replace(self, inventory=self.inventory.model_copy(update={"lab": changed}))

    def with_image(self, image: Path) -> Lab:
        """A copy of the lab. Its measured VMs boot the owner's image in the folder `image`."""
        hosts = {
            name: host.model_copy(update={"vm": host.vm.model_copy(update={"image_folder": image})})
            if host.vm
            else host
            for name, host in self.inventory.hosts.items()
        }
        return replace(self, inventory=self.inventory.model_copy(update={"hosts": hosts}))

    def proves_itself(self, host: LabHost) -> bool:
        """Whether the host makes its own keys, so that nobody knows them before it has proved them."""
        return self.inventory.machine(host.name).vm is not None

    def files(self, host: LabHost) -> dict[str, tuple[bytes, int]]:
        """The files that only this host has: path to content and mode."""
        own = self.keys[host.name]
        made = {
            "/etc/hostname": (f"{host.name}\n".encode(), 0o644),
            "/etc/hosts": (f"127.0.0.1 localhost {host.name}\n".encode(), 0o644),
            "/root/.ssh/authorized_keys": (self._authorized(host).encode(), 0o600),
        }
        if self.proves_itself(host):
            return made  # it makes its own keys, and gets everything else after it has proved them
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

    def _authorized(self, host: LabHost) -> str:
        """The keys that may log in: the lab's on all hosts, and the owner's at the provider, for orders only."""
        lines = [self.login.public]
        if host == PROVIDER:
            lines.append(authorized_line(self.provider_login.public, PROVIDER_GATE))
        return "".join(f"{line}\n" for line in lines)


def kind_of(text: str) -> Kind:
    """The kind of lab with this name. Raises UnusableInput for an unknown one."""
    if text == "vm":
        return "vm"
    if text == "netns":
        return "netns"
    raise UnusableInput(f"there is no lab of the kind {text!r}", remedy="Take vm or netns")


DOCKER = next(name for name, one in RECIPES.items() if one is RECIPE)
"""The version of Docker that a host has unless another is asked for."""


def dockers_of(text: str) -> dict[str, str]:
    """Docker's version on each host that does not have the usual one, from `26`, `28` or `26:28` (source, destination).

    UnusableInput for another version.
    """
    return _unusual("Docker", text, tuple(RECIPES), DOCKER)


def kernels_of(text: str) -> dict[str, str]:
    """The kernel of each VM that does not have the usual one, from a name of `KERNELS`, or source:destination.

    UnusableInput for another name.
    """
    return _unusual("the kernel", text, KERNELS, CLOUD)


def _unusual(what: str, text: str, known: Sequence[str], usual: str) -> dict[str, str]:
    source, _, destination = text.partition(":")
    found = {SOURCE.name: source, DESTINATION.name: destination or source}
    for name in found.values():
        if name not in known:
            raise UnusableInput(
                f"there is no lab with {what} {name!r}",
                remedy=f"Take {' or '.join(known)} for both hosts, or two with a colon between: source:destination",
            )
    return {host: name for host, name in found.items() if name != usual}


def recipe_of(facts: LabFacts | None, host: LabHost) -> Recipe:
    """The packages of a host of such a lab."""
    if facts is None:
        return RECIPE
    return recipe(facts.docker.get(host.name, DOCKER), facts.kernel.get(host.name, CLOUD))


def plan(directory: Path, evidence: Asked, facts: LabFacts) -> Lab:
    """Make the keys of all hosts and the inventory that has them. Writes the login key.

    Hosts with evidence get none of these keys: they make their own and prove them, or get them as a launch secret.
    These are the destination in a `vm` lab, and both Docker hosts in a `netns` lab.
    """
    login, provider_login = make_ssh_key(), make_ssh_key()
    key_file = _write_key(login_key(directory), login)
    provider_key_file = _write_key(directory / "id_provider", provider_login)
    keys = {
        h.name: HostKeys(make_ssh_key(), make_wireguard_key() if h.tunnel_address else None) for h in HOSTS
    }

    kind = facts.kind

    def entry(host: LabHost) -> Host:
        own = keys[host.name]
        if kind == "vm" and host == DESTINATION and evidence != "none":
            return Host(
                address=str(host.address),
                key_file=key_file,
                tunnel_address=host.tunnel_address,
                vm=Vm(
                    evidence=evidence,
                    policy=directory / POLICY,
                    name=host.name,
                    image=IMAGE,
                    tap=host.name,
                    mac=host.mac,
                    mtu=MTU,
                    vcpus=VCPUS,
                    memory_mib=MEMORY_MIB,
                    data_disk_mib=DATA_DISK_MIB,
                    configuration=directory / host.name / "configuration",
                ),
            )
        if kind == "netns" and host.docker and evidence == "snp":
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
        provider=hosts["provider"].model_copy(update={"key_file": provider_key_file}),
        client=hosts["client"],
        network=Network(mtu=TUNNEL_MTU),
        worker=Worker(without_evidence=(SOURCE.name, DESTINATION.name)),  # they have no real data
        lab=facts,
        state=directory / "state",
    )
    return Lab(inventory, keys, login, provider_login)


def login_key(directory: Path) -> Path:
    """The login key for all hosts of a lab. Owners of real hosts have no such key for their provider's machine."""
    return directory / "id_ed25519"


def _write_key(path: Path, key: SshKey) -> Path:
    path.touch(mode=0o600)
    path.write_text(key.private)
    return path
