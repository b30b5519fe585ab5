"""The inventory (`sealift.toml`): which hosts there are, how to reach them, who they must be.

It describes real machines and those of a lab in the same words; `sealift lab up` writes one.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sealift.errors import Refused, UnusableInput
from sealift.files import read_bounded
from sealift.paths import inventories_dir, run_dir, state_dir
from sealift.words import faults, read_toml

FILE_NAME = "sealift.toml"
SIZE_LIMIT = 1 << 20


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Vm(_Table):
    """What a host must prove before it is trusted, and, where a provider starts it for us, how."""

    evidence: Literal["snp", "sev"] = Field(default="snp", description="SEV-SNP, or SEV-ES (legacy SEV).")
    policy: Path = Field(description="The owner's policy (TOML): what the evidence must say.")
    image_folder: Path | None = Field(
        default=None, description="The owner's copy of the image. The digest to expect is computed from it."
    )
    name: str | None = Field(
        default=None, description="Its name at the provider; without one nobody starts it for us."
    )
    image: str | None = Field(default=None, description="The image's name at the provider.")
    tap: str | None = Field(default=None, description="The provider's network interface for it.")
    mac: str | None = Field(default=None, description="Its MAC address, in lower case.")
    mtu: int = Field(default=1500, ge=576, le=65535)
    vcpus: int = Field(default=2, ge=1)
    memory_mib: int = Field(default=2048, ge=64)
    cpu: str = Field(default="EPYC-Milan", description="QEMU's name for its processors; it is measured.")
    data_disk_mib: int = Field(default=4096, ge=1, description="Of the encrypted disk, made on first use.")
    amd_chain: Path | None = Field(
        default=None,
        description="AMD's ASK and ARK for legacy SEV, where the provider does not hand them out.",
    )
    configuration: Path | None = Field(
        default=None, description="What its configuration disk holds (tar). The provider can read it."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.name and not (self.image and self.tap and self.mac):
            raise ValueError("a VM that a provider starts needs image, tap and mac")
        if self.evidence == "sev" and not self.name:
            raise ValueError("legacy SEV is proved while a VM is launched: name, image, tap, mac are missing")
        return self


class Host(_Table):
    """One machine, reached over SSH. One with `vm` proves its keys, any other has them written here."""

    address: str = Field(description="Where its SSH server answers: a name or an address.")
    port: int = Field(default=22, ge=1, le=65535)
    user: str = Field(default="root", description="Sealift needs root on Docker hosts and on the gateway.")
    host_key: str | None = Field(
        default=None, description="Its SSH host key, `ssh-ed25519 AAAA…`. No other is accepted."
    )
    key_file: Path = Field(description="The private key to log in with.")
    tunnel_address: IPv4Address | None = Field(default=None, description="Its address inside WireGuard.")
    wireguard_key: str | None = Field(default=None, description="Its WireGuard public key.")
    binds: dict[str, Path] = Field(
        default_factory=dict,
        description="Names for directories that containers bind-mount. A bind mount whose directory carries the "
        "same name on both hosts is moved like a volume; one without a counterpart is refused.",
    )
    vm: Vm | None = Field(default=None, description="For an encrypted VM: what it must prove.")

    @model_validator(mode="after")
    def _known_or_proved(self) -> Self:
        if self.host_key is None and self.vm is None:
            raise ValueError(
                "it has neither a host_key nor a table vm: give the host_key of a machine that you trust, or say "
                "in `vm` what the machine must prove"
            )
        return self


class Network(_Table):
    """The network of the workloads, the same on every Docker host."""

    workloads: IPv4Network = Field(default=IPv4Network("10.77.0.0/16"))
    tunnel: IPv4Network = Field(default=IPv4Network("10.78.0.0/24"))
    docker_network: str = Field(default="sealift", description="Name of the user-defined Docker network.")
    mtu: int = Field(default=1420, ge=576, le=9000)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.tunnel.overlaps(self.workloads):
            raise ValueError(f"tunnel {self.tunnel} and workloads {self.workloads} overlap: take two apart")
        return self


class Limits(_Table):
    """How many migrations may be under way at once; others wait for their turn. A group counts as one."""

    per_host: int = Field(default=8, ge=1, description="To or from one host.")
    per_link: int = Field(default=4, ge=1, description="From one host to another.")


class Worker(_Table):
    """What a migration may ask for that was started through Prefect's API, and not by a person at a command line."""

    without_evidence: tuple[str, ...] = Field(
        default=(), description="Docker hosts that `evidence: none` may be asked of."
    )


class LabFacts(_Table):
    """What a lab says of itself; real machines have no such table."""

    kind: Literal["vm", "netns"]
    accelerator: str = Field(description="What runs the VMs: kvm, tcg, or none where there are none.")
    docker: dict[str, str] = Field(
        default_factory=dict,
        description="Major version of Docker on each host, where it is not the usual one.",
    )
    kernel: dict[str, str] = Field(
        default_factory=dict,
        description="Kernel of each VM, where it is not the usual one.",
    )


class Inventory(_Table):
    """All machines that a migration may touch."""

    hosts: dict[str, Host] = Field(description="Docker hosts by name.")
    gateway: Host
    provider: Host | None = None
    client: Host | None = None
    network: Network = Field(default_factory=Network)
    limits: Limits = Field(default_factory=Limits)
    worker: Worker = Field(default_factory=Worker)
    lab: LabFacts | None = None
    state: Path | None = Field(
        default=None,
        description="Where records of evidence and disk keys are kept. Default: the user's state.",
    )

    @property
    def state_folder(self) -> Path:
        """Where what was verified is on record, and the keystore."""
        return self.state or state_dir()

    @model_validator(mode="after")
    def _within_the_tunnel(self) -> Self:
        for name, host in {**self.hosts, "gateway": self.gateway}.items():
            if host.tunnel_address is not None and host.tunnel_address not in self.network.tunnel:
                raise ValueError(
                    f"{name}'s tunnel_address {host.tunnel_address} is outside of the tunnel {self.network.tunnel}: "
                    "correct it, or `tunnel` in the table network"
                )
        return self

    def known_as(self, name: str, *, host_key: str, wireguard_key: str) -> Inventory:
        """The inventory with the keys that a host has proved."""
        host = self.host(name).model_copy(update={"host_key": host_key, "wireguard_key": wireguard_key})
        return self.model_copy(update={"hosts": {**self.hosts, name: host}})

    def host(self, name: str) -> Host:
        """The Docker host of that name; UnusableInput where there is none."""
        try:
            return self.hosts[name]
        except KeyError:
            known = ", ".join(sorted(self.hosts))
            raise UnusableInput(
                f"the inventory has no host {name!r}", remedy=f"Hosts are: {known}", step="inventory"
            ) from None

    def machine(self, name: str) -> Host:
        """Any machine by name: a Docker host, the gateway, the provider or the client."""
        others = {"gateway": self.gateway, "provider": self.provider, "client": self.client}
        if found := others.get(name):
            return found
        return self.host(name)


def find(chosen: Path | None = None) -> Path:
    """The inventory to use: the one chosen, `SEALIFT_INVENTORY`, `./sealift.toml`, or that of the running lab."""
    if chosen is None and (named := os.environ.get("SEALIFT_INVENTORY")):
        chosen = Path(named)
    if chosen is not None:
        if not chosen.is_file():
            raise UnusableInput(
                f"there is no inventory {chosen}", remedy="Name an existing file", step="inventory"
            )
        return chosen
    for candidate in (Path(FILE_NAME), lab_inventory()):
        if candidate.is_file():
            return candidate
    raise UnusableInput(
        f"there is no inventory: neither ./{FILE_NAME} nor a running lab",
        remedy="Write one (README, section Inventory) or run `sealift lab up`",
        step="inventory",
    )


def find_for_worker(chosen: Path | None = None) -> Path:
    """The inventory that a worker may use: the one chosen, `SEALIFT_INVENTORY`, or sealift.toml in the workers' folder.

    A relative path is one below that folder. The running lab's inventory may be used, too. Refused for any other, by
    its real path, and for one that somebody else than root and this user could have written.
    """
    folder = inventories_dir().resolve()
    named = chosen or Path(os.environ.get("SEALIFT_INVENTORY") or FILE_NAME)
    path = (folder / named).resolve()
    if path == lab_inventory().resolve():
        folder = path.parent
    elif not path.is_relative_to(folder):
        raise Refused(
            f"{path} is not below {folder}, where the inventories of workers are",
            remedy="Put it there, or start the worker with SEALIFT_INVENTORIES set to its folder",
            step="inventory",
        )
    if not path.is_file():
        raise UnusableInput(f"there is no inventory {path}", remedy="Name an existing file", step="inventory")
    for part in (path, *path.parents):
        state = part.stat()
        if state.st_uid not in {0, os.geteuid()} or state.st_mode & 0o022:
            raise Refused(
                f"others than root may have written {path}: {part} belongs to user {state.st_uid} and has mode "
                f"{state.st_mode & 0o7777:o}",
                remedy=f"Look at what is in it, then `chown root {part}` and `chmod go-w {part}`",
                step="inventory",
            )
        if part == folder:
            break
    return path


def lab_inventory() -> Path:
    """Where the running lab's inventory lies."""
    return run_dir() / "lab" / FILE_NAME


def load(chosen: Path | None = None) -> Inventory:
    """Read the inventory; UnusableInput names the file and what is wrong in it."""
    path = find(chosen)
    try:
        return Inventory.model_validate(read_toml(read_bounded(path, SIZE_LIMIT)))
    except ValidationError as invalid:
        found = "; ".join(f"{where}: {what}" for where, what in faults(Inventory, invalid))
        raise UnusableInput(
            f"{path} is not an inventory: {found}", remedy="README, section Inventory", step="inventory"
        ) from invalid
    except ValueError as unreadable:
        raise UnusableInput(f"{path} is not readable as TOML: {unreadable}", step="inventory") from unreadable


def save(inventory: Inventory, path: Path) -> None:
    """Write an inventory as TOML, readable by its owner only."""
    import tomli_w  # noqa: PLC0415 - only a lab writes inventories

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(tomli_w.dumps(inventory.model_dump(mode="json", exclude_none=True)))
