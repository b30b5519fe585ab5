"""From an order to QEMU's command line, which `sealift.machine.qemu` builds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.machine.qemu import Measured, VirtualMachine, qemu_argv

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.processor.interface import LaunchArguments
    from sealift.provider.image import Image
    from sealift.provider.orders import StartOrder
    from sealift.provider.record import Place
    from sealift.provider.settings import Settings


def machine_words(
    settings: Settings, place: Place, order: StartOrder, image: Image, arguments: LaunchArguments | None
) -> list[str]:
    """The command of the VM. Its disks are made first."""
    configuration = place.folder / "configuration"
    # A disk has whole sectors, and QEMU refuses an empty disk.
    content = order.configuration or bytes(512)
    configuration.write_bytes(content + bytes(-len(content) % 512))
    measured = None
    if arguments is not None:
        measured = Measured(image.firmware, image.append, arguments, order.cpu)
    machine = VirtualMachine(
        name=order.vm,
        accelerator=settings.accelerator,
        vcpus=order.vcpus,
        memory_mib=order.memory_mib,
        kernel=image.kernel,
        initrd=image.initrd,
        root_disk=image.root,
        data_disk=ready_disk(settings.disks / order.vm, order.data_disk_mib),
        configuration_disk=configuration,
        tap=order.tap,
        mac=order.mac,
        qmp_socket=place.qmp,
        console_log=place.folder / "console.log",
        append="" if measured else image.append,
        measured=measured,
        mtu=order.mtu,
    )
    return [*settings.qemu, *qemu_argv(machine)[1:]]


def ready_disk(path: Path, size_mib: int) -> Path:
    """The VM's data disk. A new one is sparse and empty. An existing one keeps its size and content."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if not path.is_file():
            raise UnusableInput(
                f"{path} is not a disk file", remedy="The provider's administrator must remove it"
            ) from None
        return path
    try:
        os.truncate(handle, size_mib << 20)
    finally:
        os.close(handle)
    return path
