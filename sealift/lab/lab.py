"""A lab's life: up, status, down. Above it, its hosts are machines of an inventory like any other."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sealift import inventory as inventories
from sealift.errors import PrerequisiteMissing, Refused, SealiftError, UnusableInput
from sealift.host import prepare, ssh
from sealift.inventory import Inventory, LabFacts
from sealift.lab import namespaced, teardown, wiring
from sealift.lab.keys import SshKey, WireGuardKey, make_ssh_key, make_wireguard_key
from sealift.lab.layout import DESTINATION, GATEWAY, HOSTS, PROVIDER, SOURCE, LabHost
from sealift.machine.recipe import RECIPE, files_dir
from sealift.machine.tree import build_tree
from sealift.network import wireguard
from sealift.paths import run_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Kind = Literal["vm", "netns"]
SSH_PATIENCE_S = 20
SMALL_TMPFS_MIB = 256
DOCKER_TMPFS_MIB = 6144


@dataclass(frozen=True)
class HostKeys:
    """What makes a host of the lab itself."""

    ssh: SshKey
    wireguard: WireGuardKey | None


def lab_dir() -> Path:
    """Where the lab keeps its keys, logs and inventory while it is up."""
    return run_dir() / "lab"


def up(kind: Kind, *, say: Callable[[str], None]) -> Inventory:
    """Bring a lab up and write its inventory. Whatever goes wrong, nothing of a half-built lab stays."""
    _may_start()
    directory = lab_dir()
    tree = build_tree(RECIPE, say=say)
    started = time.monotonic()
    try:
        directory.mkdir(parents=True, mode=0o700)
        lab = _plan(kind, directory)
        if kind == "vm":
            from sealift.lab import virtual  # noqa: PLC0415 - a netns lab needs nothing of it

            lab = virtual.start(lab, directory, tree, _configure, say=say)
        else:
            _start_namespaced(lab, directory, tree, HOSTS, ())
        say("waiting for SSH and Docker")
        _prepare_hosts(lab)
        inventories.save(lab.inventory, inventories.lab_inventory())
    except BaseException:
        with suppress(SealiftError):
            teardown.remove(directory)
        raise
    say(f"the {kind} lab is up after {time.monotonic() - started:.1f} s: {inventories.lab_inventory()}")
    return lab.inventory


def down() -> bool:
    """End the lab, whole or in part. Returns whether there was one."""
    if os.geteuid() != 0:
        raise PrerequisiteMissing("only root can end a lab", remedy="Run this as root, say with sudo")
    there = lab_dir().exists() or str(lab_dir()) in namespaced.marked_processes().values()
    teardown.remove(lab_dir())
    return there


def running() -> Inventory:
    """The inventory of the lab that is up; UnusableInput when there is none."""
    path = inventories.lab_inventory()
    if not path.is_file():
        raise UnusableInput("no lab is up", remedy="`sealift lab up` brings one up", step="lab")
    return inventories.load(path)


@dataclass(frozen=True)
class Lab:
    """A lab in the making: its inventory and the secrets that its hosts get."""

    inventory: Inventory
    keys: dict[str, HostKeys]
    login: SshKey


def _may_start() -> None:
    if os.geteuid() != 0:
        raise PrerequisiteMissing(
            "a lab needs root, for namespaces and mounts", remedy="Run this as root, say with sudo"
        )
    if lab_dir().exists() or str(lab_dir()) in namespaced.marked_processes().values():
        raise Refused("a lab is up already, or one was killed", remedy="`sealift lab down` ends it", step="lab up")


def _plan(kind: Kind, directory: Path) -> Lab:
    """Keys for everybody and the inventory that names them."""
    login = make_ssh_key()
    key_file = directory / "id_ed25519"
    key_file.touch(mode=0o600)
    key_file.write_text(login.private)
    keys = {h.name: HostKeys(make_ssh_key(), make_wireguard_key() if h.tunnel_address else None) for h in HOSTS}

    def entry(host: LabHost) -> inventories.Host:
        own = keys[host.name]
        return inventories.Host(
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
        lab=LabFacts(kind=kind, accelerator="none"),
    )
    return Lab(inventory, keys, login)


def _configure(lab: Lab, host: LabHost) -> dict[str, tuple[bytes, int]]:
    """The files that make a host the one that the inventory names: path to content and mode."""
    own = lab.keys[host.name]
    made = {
        "/etc/hostname": (f"{host.name}\n".encode(), 0o644),
        "/etc/hosts": (f"127.0.0.1 localhost {host.name}\n".encode(), 0o644),
        "/etc/ssh/ssh_host_ed25519_key": (own.ssh.private.encode(), 0o600),
        "/root/.ssh/authorized_keys": (f"{lab.login.public}\n".encode(), 0o600),
    }
    if own.wireguard:
        gateway = host == GATEWAY
        inventory = lab.inventory
        peers = (
            wireguard.gateway_peers(inventory) if gateway else wireguard.host_peers(inventory, host.name)
        )
        entry = inventory.machine(host.name)
        role = "gateway" if gateway else "host"
        made["/etc/sealift/network.env"] = (wireguard.environment(inventory, entry, role=role).encode(), 0o644)
        made["/etc/sealift/wireguard.conf"] = (wireguard.render(own.wireguard.private, peers).encode(), 0o600)
    return made


def _start_namespaced(
    lab: Lab, directory: Path, tree: Path, hosts: tuple[LabHost, ...], virtual: tuple[LabHost, ...]
) -> None:
    """Start the namespaced hosts and wire them; those in `virtual` get their cables in the provider."""
    mark = str(directory)
    switch = namespaced.start_switch(mark)
    started = {}
    for host in hosts:
        place = directory / host.name
        config = place / "config"
        config.mkdir(parents=True)
        for path, (content, mode) in _configure(lab, host).items():
            target = config / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(mode=0o600)
            target.write_bytes(content)
            target.chmod(mode)
        (config / "root").mkdir(exist_ok=True)
        (config / "root").chmod(0o700)
        started[host] = namespaced.start(
            host.name,
            lower=f"{config}:{files_dir()}:{tree}",
            directory=place,
            mark=mark,
            tmpfs_mib=DOCKER_TMPFS_MIB if host.docker else SMALL_TMPFS_MIB,
            docker=host.docker,
        )
    wiring.wire(
        switch.pid,
        {host: one.pid for host, one in started.items()},
        virtual=virtual,
        provider=PROVIDER,
        workloads=str(lab.inventory.network.workloads),
    )
    for one in started.values():
        one.release()


def _prepare_hosts(lab: Lab) -> None:
    """Wait for SSH on all hosts, and give the Docker hosts the network of the workloads."""

    def one(host: LabHost) -> None:
        entry = lab.inventory.machine(host.name)
        with ssh.connect(host.name, entry, patience_s=SSH_PATIENCE_S) as connection:
            if host.docker:
                prepare.docker_network(connection, lab.inventory.network)

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        list(pool.map(one, HOSTS))
