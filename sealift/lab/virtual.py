"""The `vm` kind of lab: source and destination are VMs under QEMU in the provider, the rest namespaced hosts."""

from __future__ import annotations

import shlex
import shutil
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.host import ssh
from sealift.inventory import LabFacts
from sealift.lab.layout import DESTINATION, HOSTS, MTU, PROVIDER, SOURCE, UNDERLAY, LabHost, machines_dir
from sealift.machine.accelerator import choose_accelerator
from sealift.machine.boot import GuestConfiguration, GuestFile, NetworkInterface, write_configuration
from sealift.machine.disk import build_disk, create_data_disk
from sealift.machine.initrd import build_initrd, kernel_of
from sealift.machine.qemu import VirtualMachine, qemu_argv
from sealift.machine.recipe import files_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.lab.plan import Lab

VIRTUAL = (SOURCE, DESTINATION)
VCPUS = 1
"""Emulated, two of them on two cores only get into each other's way: 23 s to SSH and Docker with one, 38 s with two."""

MEMORY_MIB = 2048
IMAGES = Path("/srv/images")
MACHINES = Path("/srv/machines")
"""In the provider: what all VMs boot (read-only to them), and what each of them has."""


def prepare(
    lab: Lab, directory: Path, tree: Path, *, say: Callable[[str], None]
) -> tuple[Lab, list[tuple[Path, str]]]:
    """Make the disks. Returns the lab with its accelerator, and what the provider is to find where."""
    accelerator = choose_accelerator(tree, say=say)
    disk = build_disk(tree, files_dir())
    initrd = build_initrd(tree)
    machines = machines_dir(directory)
    shutil.rmtree(machines, ignore_errors=True)
    for host in VIRTUAL:
        place = machines / host.name
        place.mkdir(parents=True, mode=0o700)
        create_data_disk(place / "data")
        write_configuration(place / "configuration", _configuration(lab, host))
    facts = LabFacts(kind="vm", accelerator=accelerator.value)
    binds = [
        (kernel_of(tree), f"{IMAGES}/kernel"),
        (initrd, f"{IMAGES}/initrd"),
        (disk, f"{IMAGES}/root"),
        (machines, str(MACHINES)),
    ]
    return lab.with_facts(facts), binds


def launch(lab: Lab, tree: Path, *, say: Callable[[str], None]) -> None:
    """Start the VMs, both at once, in the provider."""
    say(f"starting {', '.join(host.name for host in VIRTUAL)} under QEMU")
    accelerator = choose_accelerator(tree, say=say)
    with ssh.connect(PROVIDER.name, lab.inventory.machine(PROVIDER.name), patience_s=20) as provider:
        for host in VIRTUAL:
            place = MACHINES / host.name
            machine = VirtualMachine(
                name=host.name,
                accelerator=accelerator,
                vcpus=VCPUS,
                memory_mib=MEMORY_MIB,
                kernel=IMAGES / "kernel",
                initrd=IMAGES / "initrd",
                root_disk=IMAGES / "root",
                data_disk=place / "data",
                configuration_disk=place / "configuration",
                tap=host.name,
                mac=_mac(host),
                qmp_socket=place / "qmp",
                console_log=place / "console.log",
                mtu=MTU,
            )
            log = shlex.quote(str(place / "qemu.log"))
            command = f"setsid {shlex.join(qemu_argv(machine))} </dev/null >{log} 2>&1 & echo $!"
            provider.run(["sh", "-c", command])


def complaint(directory: Path, host: LabHost) -> str:
    """What a VM's console or QEMU said last: the reason why it does not answer, if there is one."""
    said = []
    for name in ("qemu.log", "console.log"):
        path = machines_dir(directory) / host.name / name
        if path.is_file():
            said += path.read_text(errors="replace").splitlines()[-3:]
    return "; ".join(line.strip() for line in said if line.strip())


def namespaced() -> tuple[LabHost, ...]:
    """The hosts that are no VMs."""
    return tuple(host for host in HOSTS if host not in VIRTUAL)


def _configuration(lab: Lab, host: LabHost) -> GuestConfiguration:
    own = lab.keys[host.name]
    interface = NetworkInterface(_mac(host), IPv4Interface((host.address, UNDERLAY.prefixlen)))
    files = tuple(
        GuestFile(path, content, mode)
        for path, (content, mode) in lab.files(host).items()
        if path.startswith("/etc/sealift/")
    )
    return GuestConfiguration(host.name, (interface,), (lab.login.public,), own.ssh.private.encode(), files)


def _mac(host: LabHost) -> str:
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in host.address.packed[1:])
