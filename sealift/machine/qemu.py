"""QEMU's arguments for one VM.

All paths are as the provider's processes see them. The caller starts and ends QEMU. QEMU also ends when the guest
powers off, reboots or panics.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sealift.processor.interface import LaunchArguments

QEMU = "/usr/bin/qemu-system-x86_64"


class Accelerator(StrEnum):
    """The accelerator, which runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True)
class Measured:
    """The arguments of a measured VM. `command_line` is the kernel's whole command line: nothing is added to it.

    The VM starts paused, so that its secure processor can launch it first. `cpu` is used with KVM only, where the start
    registers of a processor are measured.
    """

    firmware: Path
    command_line: str
    launch: LaunchArguments
    cpu: str


@dataclass(frozen=True)
class VirtualMachine:
    """One VM, as QEMU starts it. `tap` names an interface of the machine on which QEMU runs."""

    name: str
    accelerator: Accelerator
    vcpus: int
    memory_mib: int
    kernel: Path
    initrd: Path
    root_disk: Path
    data_disk: Path
    configuration_disk: Path
    tap: str
    mac: str
    qmp_socket: Path
    console_log: Path
    append: str = ""
    measured: Measured | None = None
    mtu: int = 1500


COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 net.ifnames=0 audit=0 "
    # Security modules are not used here, but systemd would load a BPF program for them: 2 s under emulation.
    "lsm= "
    "psi=0"
)
EMULATED_COMMAND_LINE = (
    # An emulated processor does not speculate, and anybody who runs it can read its memory anyway.
    "mitigations=off init_on_alloc=0 nokaslr "
    # The kernel counts ticks of the timer in a short loop, and panics if none comes. A busy machine gives it none.
    "no_timer_check"
)


def security_words(tree: Path) -> str:
    """What a tree's VM has on its command line besides: AppArmor, if the tree has its tools (`recipe.KERNELS`)."""
    return "lsm=apparmor" if (tree / "usr/sbin/apparmor_parser").exists() else ""


def kernel_command_line(machine: VirtualMachine) -> str:
    """The kernel's command line, which a measured boot measures."""
    if machine.measured is not None:
        return machine.measured.command_line
    emulated = EMULATED_COMMAND_LINE if machine.accelerator is Accelerator.TCG else ""
    return " ".join(part for part in (COMMAND_LINE, emulated, machine.append) if part)


def qemu_argv(machine: VirtualMachine) -> list[str]:
    """The command of the VM. It runs in the foreground; QMP listens on `qmp_socket`."""
    return [
        *(QEMU, "-name", f"guest={machine.name}", "-no-user-config", "-nodefaults", "-no-reboot"),
        *("-display", "none", "-machine", _machine_type(machine)),
        *_measured(machine),
        *_processor(machine),
        *("-m", f"{machine.memory_mib}M"),
        *("-kernel", str(machine.kernel), "-initrd", str(machine.initrd)),
        *("-append", kernel_command_line(machine)),
        *_disk("sealift-root", machine.root_disk, read_only=True),
        *_disk("sealift-data", machine.data_disk, read_only=False),
        *_disk("sealift-config", machine.configuration_disk, read_only=True),
        *("-netdev", _json(type="tap", id="net", ifname=machine.tap, script="no", downscript="no")),
        # Without its boot ROM.
        *(
            "-device",
            _json(driver="virtio-net-pci", netdev="net", mac=machine.mac, host_mtu=machine.mtu, romfile=""),
        ),
        *("-chardev", f"file,id=console,path={_escaped(machine.console_log)}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,path={_escaped(machine.qmp_socket)},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
    ]


def _machine_type(machine: VirtualMachine) -> str:
    kind = "q35,hpet=off,vmport=off,usb=off"
    if machine.measured is None:
        return kind
    launch = machine.measured.launch
    if not launch.smm:
        kind += ",smm=off"
    if launch.shared_memory:
        kind += ",memory-backend=memory"
    if launch.confidential_guest_support:
        kind += f",confidential-guest-support={launch.confidential_guest_support}"
    return kind


def _measured(machine: VirtualMachine) -> list[str]:
    if machine.measured is None:
        return []
    launch = machine.measured.launch
    memory = _json({"qom-type": "memory-backend-memfd", "id": "memory", "size": machine.memory_mib << 20})
    return [
        *("-S", "-bios", str(machine.measured.firmware)),
        *(("-object", memory) if launch.shared_memory else ()),
        *launch.words,
    ]


def _processor(machine: VirtualMachine) -> list[str]:
    if machine.accelerator is Accelerator.KVM:
        cpu = machine.measured.cpu if machine.measured else "host"
        return ["-accel", "kvm", "-cpu", cpu, "-smp", str(machine.vcpus)]
    # Without AVX: the kernel's WireGuard would use it, and its emulation halves the tunnel's rate.
    return ["-accel", "tcg,thread=multi", "-cpu", "max,avx=off", "-smp", str(machine.vcpus)]


def _disk(serial: str, path: Path, *, read_only: bool) -> list[str]:
    """A raw disk that the init finds by its serial number. Read-only ones may be shared by VMs."""
    file = {"driver": "file", "filename": str(path)}
    return [
        *("-blockdev", _json({"driver": "raw", "node-name": serial, "read-only": read_only, "file": file})),
        *("-device", _json(driver="virtio-blk-pci", drive=serial, serial=serial)),
    ]


def _json(options: Mapping[str, object] | None = None, **more: object) -> str:
    return json.dumps({**(options or {}), **more})


def _escaped(path: Path) -> str:
    """A value for those options of QEMU that take no JSON: commas are doubled."""
    return str(path).replace(",", ",,")
