"""The `vm` kind of lab: source and destination are VMs under QEMU in the provider, the other hosts are namespaced.

The source is the owner's machine, and the lab starts it. With evidence, the destination is the provider's VM: an order
to the provider starts it from a measured image, as for any other owner.
"""

from __future__ import annotations

import shlex
import shutil
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING

import qemu.qmp
import tomli_w

import sealift
from sealift.attestation.launch import start_snp
from sealift.host import ssh
from sealift.lab import processors
from sealift.lab.layout import (
    DATA_DISK_MIB,
    DESTINATION,
    HOSTS,
    MEMORY_MIB,
    MTU,
    PROVIDER,
    SOURCE,
    UNDERLAY,
    VCPUS,
    LabHost,
    machines_dir,
)
from sealift.lab.namespaced import first_process
from sealift.lab.plan import IMAGE, POLICY, login_key, recipe_of
from sealift.machine.accelerator import choose_accelerator
from sealift.machine.boot import GuestConfiguration, GuestFile, NetworkInterface, write_configuration
from sealift.machine.disk import build_disk, create_data_disk
from sealift.machine.expected import expected_digests
from sealift.machine.image import GuestEvidence, build_image
from sealift.machine.initrd import build_initrd, kernel_of
from sealift.machine.qemu import Accelerator, VirtualMachine, qemu_argv, security_words
from sealift.machine.recipe import files_dir
from sealift.machine.tree import build_tree
from sealift.paths import cache_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealift.inventory import Inventory
    from sealift.lab.plan import Lab

    Binds = list[tuple[Path, str]]
    Files = dict[str, tuple[bytes, int]]

VIRTUAL = (SOURCE, DESTINATION)
PLAIN = Path("/srv/plain")
IMAGES = Path("/srv/images")
MACHINES = Path("/srv/machines")
"""Directories in the provider: files that plain VMs boot, images of measured VMs (VMs can only read both), and the
files of each VM."""

PACKAGES = Path("/usr/lib/python3/dist-packages")
SETTINGS = "/etc/sealift/provider.toml"
OFF_TIMEOUT_S = 20


def prepare(
    lab: Lab, directory: Path, trees: Mapping[LabHost, Path], *, say: Callable[[str], None]
) -> tuple[Lab, Binds, Files]:
    """Make the disks. Returns the lab with its accelerator, and the bind mounts and files of the provider."""
    accelerator = choose_accelerator(trees[PROVIDER], say=say)
    lab = lab.with_accelerator(accelerator.value)
    machines = machines_dir(directory)
    shutil.rmtree(machines, ignore_errors=True)
    machines.mkdir(parents=True, mode=0o700)
    binds: Binds = [(machines, str(MACHINES))]
    files: Files = {}
    for host in VIRTUAL:
        tree = trees[host]
        if lab.proves_itself(host):
            lab, more = _measured(lab, host, directory, tree, accelerator, say)
            binds += more
            files[SETTINGS] = (_provider_settings(host, accelerator).encode(), 0o644)
        else:
            parts = {
                "kernel": kernel_of(tree),
                "initrd": build_initrd(tree),
                "root": build_disk(tree, files_dir(), say=say),
            }
            binds += [(path, f"{PLAIN}/{host.name}/{name}") for name, path in parts.items()]
            place = machines / host.name
            place.mkdir(mode=0o700)
            create_data_disk(place / "data", DATA_DISK_MIB << 20)
            write_configuration(place / "configuration", _configuration(lab, host))
    return lab, binds, files


def _measured(
    lab: Lab, host: LabHost, directory: Path, tree: Path, accelerator: Accelerator, say: Callable[[str], None]
) -> tuple[Lab, Binds]:
    """Make the image of a measured VM and the policy that names it. Returns the provider's bind mounts, too."""
    vm = lab.inventory.host(host.name).vm
    if vm is None or vm.configuration is None:  # never: it has evidence
        raise AssertionError
    image = build_image(
        tree,
        files_dir(),
        owner_key=lab.login.public,
        evidence=GuestEvidence(vm.evidence),
        emulated=accelerator is Accelerator.TCG,
        say=say,
    )
    digests = expected_digests(image, vm.vcpus, vm.cpu)
    (directory / POLICY).write_text(processors.policy(processors.make_roots(say=say), digests))
    vm.configuration.parent.mkdir(mode=0o700, exist_ok=True)
    write_configuration(vm.configuration, GuestConfiguration(host.name, (_interface(host),)))
    chip = cache_dir() / "emulated" / "chips" / PROVIDER.name
    chip.mkdir(parents=True, mode=0o700, exist_ok=True)
    return lab.with_image(image), [
        (image, f"{IMAGES}/{IMAGE}"),
        (chip, str(_CHIP)),
        (processors.authority_dir(), str(_AUTHORITY)),
        (Path(sealift.__file__).parent, f"{PACKAGES}/sealift"),
        (Path(qemu.qmp.__file__).parent, f"{PACKAGES}/qemu/qmp"),  # Debian 13 has no such package
    ]


_CHIP = Path("/var/lib/sealift/chip")
_AUTHORITY = Path("/var/lib/sealift/authority")


def _provider_settings(host: LabHost, accelerator: Accelerator) -> str:
    settings = {
        "processor": "emulated",
        "accelerator": accelerator.value,
        "images": str(IMAGES),
        "disks": str(MACHINES / "disks"),
        "chip": str(_CHIP),
        "authority": str(_AUTHORITY),
        "taps": [host.name],
    }
    return tomli_w.dumps(settings)


def launch(lab: Lab, directory: Path, trees: Mapping[LabHost, Path], *, say: Callable[[str], None]) -> None:
    """Start the VMs that are not the provider's. Attestation starts the provider's."""
    say(f"starting {', '.join(host.name for host in VIRTUAL)} under QEMU")
    accelerator = choose_accelerator(trees[PROVIDER], say=say)
    for host in VIRTUAL:
        if not lab.proves_itself(host):
            _start(host, lab.inventory, directory, accelerator, trees[host])


def _start(
    host: LabHost, inventory: Inventory, directory: Path, accelerator: Accelerator, tree: Path
) -> None:
    place = MACHINES / host.name
    machine = VirtualMachine(
        name=host.name,
        accelerator=accelerator,
        vcpus=VCPUS,
        memory_mib=MEMORY_MIB,
        kernel=PLAIN / host.name / "kernel",
        initrd=PLAIN / host.name / "initrd",
        root_disk=PLAIN / host.name / "root",
        data_disk=place / "data",
        configuration_disk=place / "configuration",
        tap=host.name,
        mac=host.mac,
        qmp_socket=place / "qmp",
        console_log=place / "console.log",
        append=security_words(tree),
        mtu=MTU,
    )
    log = shlex.quote(str(place / "qemu.log"))
    command = f"setsid {shlex.join(qemu_argv(machine))} </dev/null >{log} 2>&1 & echo $!"
    entry = inventory.machine(PROVIDER.name).model_copy(update={"key_file": login_key(directory)})
    with ssh.connect(PROVIDER.name, entry, patience_s=20) as provider:
        provider.run(["sh", "-c", command])


OFF = """
for p in /proc/[0-9]*; do
	case $(tr '\\0' ' ' <"$p/cmdline" 2>/dev/null) in
	*" -name guest=$1 "*) kill -9 "${p#/proc/}"; while [ -e "$p" ]; do sleep 0.02; done ;;
	esac
done
"""


def off(host: LabHost, directory: Path) -> None:
    """Cut the power of a VM. What it has not flushed to its disk is lost."""
    first = first_process(PROVIDER.name, str(directory))
    words = ["nsenter", "--all", "--target", str(first), "sh", "-c", OFF, "sh", host.name]
    run(words, timeout_s=OFF_TIMEOUT_S)


def on(host: LabHost, directory: Path, inventory: Inventory) -> None:
    """Boot the VM again with its disk. An order starts the provider's VM, as the first time."""
    vm = inventory.host(host.name).vm
    if vm is not None:
        start_snp(inventory, host.name, vm)
        return
    lab = inventory.lab
    accelerator = Accelerator(lab.accelerator) if lab and lab.accelerator else Accelerator.TCG
    _start(host, inventory, directory, accelerator, build_tree(recipe_of(lab, host), say=lambda _: None))


def namespaced() -> tuple[LabHost, ...]:
    """The hosts that are not VMs."""
    return tuple(host for host in HOSTS if host not in VIRTUAL)


def _configuration(lab: Lab, host: LabHost) -> GuestConfiguration:
    own = lab.keys[host.name]
    files = tuple(
        GuestFile(path, content, mode)
        for path, (content, mode) in lab.files(host).items()
        if path.startswith("/etc/sealift/")
    )
    return GuestConfiguration(
        host.name, (_interface(host),), (lab.login.public,), own.ssh.private.encode(), files
    )


def _interface(host: LabHost) -> NetworkInterface:
    return NetworkInterface(host.mac, IPv4Interface((host.address, UNDERLAY.prefixlen)))
