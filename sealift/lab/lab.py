"""Bring a lab up and take it down. For the rest of Sealift its hosts are ordinary machines of an inventory."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from sealift import inventory as inventories
from sealift.attestation.attest import attest, keystore_of
from sealift.attestation.provision import introduce, provision
from sealift.attestation.record import pinned
from sealift.errors import PrerequisiteMissing, Refused, SealiftError, UnusableInput
from sealift.host import prepare, ssh
from sealift.host.agents import Agent
from sealift.inventory import LabFacts
from sealift.lab import namespaced, power, processors, teardown, wiring
from sealift.lab.layout import GATEWAY, HOSTS, PROVIDER, LabHost
from sealift.lab.plan import (
    DOCKER,
    POLICY,
    Asked,
    Kind,
    Lab,
    dockers_of,
    kernels_of,
    login_key,
    plan,
    recipe_of,
)
from sealift.machine.recipe import CLOUD, files_dir
from sealift.machine.tree import build_tree
from sealift.paths import run_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sealift.attestation.record import Record
    from sealift.inventory import Host, Inventory

SSH_PATIENCE_S = 20
VM_SSH_PATIENCE_S = 180
DOCKER_VARIABLE = "SEALIFT_DOCKER"
"""It says which versions of Docker a lab has unless they are asked for."""


def lab_dir() -> Path:
    """Where the lab keeps its keys, logs and inventory while it is up."""
    return run_dir() / "lab"


def up(
    kind: Kind,
    *,
    say: Callable[[str], None],
    evidence: Asked | None = None,
    docker: str | None = None,
    kernel: str | None = None,
) -> Inventory:
    """Bring a lab up and write its inventory. If a step fails, all parts of the lab are removed.

    With evidence (the default: SNP) the hosts that have evidence are attested. The returned inventory has the keys that
    they proved. `docker` is the version of Docker at both hosts, or at the source and the destination: `26:28`. Its
    default is the value of SEALIFT_DOCKER, or 26. `kernel` is the VMs' (`recipe.KERNELS`), or two in the same way.
    """
    _may_start()
    asked: Asked = evidence or "snp"
    if kind == "netns" and asked == "sev":
        raise UnusableInput(
            "legacy SEV proves a launch by a secure processor, and a namespaced host has none",
            remedy="Take `--evidence snp`, or `--kind vm`",
            step="lab up",
        )
    if kind == "netns" and kernel:
        raise UnusableInput(
            "namespaced hosts run on this machine's kernel", remedy="Take `--kind vm`", step="lab up"
        )
    facts = LabFacts(
        kind=kind,
        accelerator="none",
        docker=dockers_of(docker or os.environ.get(DOCKER_VARIABLE) or DOCKER),
        kernel=kernels_of(kernel or CLOUD),
    )
    directory = lab_dir()
    trees = {host: build_tree(recipe_of(facts, host), say=say) for host in HOSTS}
    roots = processors.make_roots(say=say) if kind == "netns" and asked != "none" else None
    started = time.monotonic()
    try:
        directory.mkdir(parents=True, mode=0o700)
        lab = plan(directory, asked, facts)
        if roots is not None:
            (directory / POLICY).write_text(processors.policy(roots))
        if kind == "vm":
            lab = _start_vm(lab, directory, trees, say)
        else:
            _start_namespaced(lab, directory, trees, HOSTS)
        say("waiting for SSH and Docker")
        known = _prepare_hosts(lab)
        inventories.save(lab.inventory, inventories.lab_inventory())
    except BaseException:
        with suppress(SealiftError):
            teardown.remove(directory)
        raise
    say(f"the {kind} lab is up after {time.monotonic() - started:.1f} s: {inventories.lab_inventory()}")
    return known


def down() -> bool:
    """End the lab, whole or in part. Returns whether there was one."""
    if os.geteuid() != 0:
        raise PrerequisiteMissing("only root can end a lab", remedy="Run this as root, for example with sudo")
    there = lab_dir().exists() or str(lab_dir()) in namespaced.marked_processes().values()
    teardown.remove(lab_dir())
    return there


def running() -> Inventory:
    """The inventory of the running lab, with the keys that its hosts have proved.

    Raises UnusableInput if no lab is up.
    """
    path = inventories.lab_inventory()
    if not path.is_file():
        raise UnusableInput("no lab is up", remedy="`sealift lab up` brings one up", step="lab")
    return pinned(inventories.load(path))


def machine(inventory: Inventory, name: str) -> Host:
    """A host of the running lab, with its administrator's login key.

    The inventory has another key for the provider, with which the owner can only give orders.
    """
    entry = inventory.machine(name)
    return entry.model_copy(update={"key_file": login_key(lab_dir())}) if name == PROVIDER.name else entry


def _may_start() -> None:
    if os.geteuid() != 0:
        raise PrerequisiteMissing(
            "a lab needs root, for namespaces and mounts", remedy="Run this as root, for example with sudo"
        )
    if lab_dir().exists() or str(lab_dir()) in namespaced.marked_processes().values():
        raise Refused(
            "a lab is up already, or one was killed", remedy="`sealift lab down` ends it", step="lab up"
        )
    if (other := wiring.owner()) not in {None, str(lab_dir())}:
        raise Refused(
            f"another lab is up in this network namespace: {other}",
            remedy="End it with `sealift lab down` and its SEALIFT_RUN, or start this one in `unshare --net`",
            step="lab up",
        )


def _start_vm(lab: Lab, directory: Path, trees: dict[LabHost, Path], say: Callable[[str], None]) -> Lab:
    from sealift.lab import virtual  # noqa: PLC0415 - a netns lab does not need it

    lab, binds, files = virtual.prepare(lab, directory, trees, say=say)
    _start_namespaced(
        lab,
        directory,
        trees,
        virtual.namespaced(),
        virtual=virtual.VIRTUAL,
        provider_binds=binds,
        provider_files=files,
    )
    virtual.launch(lab, directory, trees, say=say)
    return lab


def _start_namespaced(
    lab: Lab,
    directory: Path,
    trees: dict[LabHost, Path],
    hosts: tuple[LabHost, ...],
    *,
    virtual: tuple[LabHost, ...] = (),
    provider_binds: Sequence[tuple[Path, str]] = (),
    provider_files: Mapping[str, tuple[bytes, int]] | None = None,
) -> None:
    """Start the namespaced hosts and connect them. The VMs in `virtual` are connected through the provider."""
    mark = str(directory)
    disks = {directory / host.name: power.DISK_MIB if host.docker else power.SMALL_MIB for host in hosts}
    switch = namespaced.start_switch(mark, disks)
    configs = {
        host: _write_config(
            directory / host.name / "config",
            {**lab.files(host), **((provider_files or {}) if host == PROVIDER else {})},
        )
        for host in hosts
    }
    # The processors are started first, so that they start up at the same time as the hosts.
    chips = {
        host: processors.start(host.name, directory / host.name, mark)
        for host in hosts
        if lab.proves_itself(host)
    }
    started = {
        host: power.enter(
            host,
            f"{config}:{files_dir()}:{trees[host]}",
            directory,
            switch.pid,
            proves_itself=host in chips,
            binds=provider_binds if host == PROVIDER else (),
        )
        for host, config in configs.items()
    }
    wiring.wire(
        switch.pid,
        {host: one.pid for host, one in started.items()},
        mark=mark,
        virtual=virtual,
        provider=PROVIDER,
        workloads=str(lab.inventory.network.workloads),
    )
    for chip in chips.values():
        processors.launch(chip)
    for one in started.values():
        one.release()


def _write_config(config: Path, files: dict[str, tuple[bytes, int]]) -> Path:
    """Write one host's own files. They are the topmost layer of its root."""
    config.mkdir(parents=True)
    for path, (content, mode) in files.items():
        target = config / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=0o600)
        target.write_bytes(content)
        target.chmod(mode)
    (config / "root").chmod(0o700)
    return config


def _prepare_hosts(lab: Lab) -> Inventory:
    """Wait for SSH on all hosts. Attest and provision the hosts with evidence. Give Docker hosts their network."""
    patience_s = VM_SSH_PATIENCE_S if lab.inventory.lab and lab.inventory.lab.kind == "vm" else SSH_PATIENCE_S

    def one(host: LabHost) -> tuple[Record, ssh.Connection] | None:
        if lab.proves_itself(host):
            return attest(lab.inventory, host.name, patience_s=patience_s)
        with ssh.connect(host.name, machine(lab.inventory, host.name), patience_s=patience_s) as connection:
            if host.docker:
                prepare.docker_network(connection, lab.inventory.network)
        return None

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        attested = [found for found in pool.map(one, HOSTS) if found is not None]
        known = pinned(lab.inventory)
        if attested:
            keystore = keystore_of(known)
            provisioned = [pool.submit(provision, known, *found, keystore) for found in attested]
            with (
                ssh.connected(GATEWAY.name, known.gateway) as connection,
                Agent(connection, "gateway") as gateway,
            ):
                for record, _ in attested:
                    introduce(known, record.host, gateway)
            for each in provisioned:
                each.result()
            for _, connection in attested:
                connection.close()
    return known
