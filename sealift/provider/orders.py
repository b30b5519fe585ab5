"""The orders of an owner to a provider and their answers: the fields of the JSON in both directions.

Bytes are base64. A field without a default is required; an unknown field is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from sealift.errors import UnusableInput
from sealift.evidence.launch.digest import Mode  # noqa: TC001 - read at run time by `wire`
from sealift.processor.interface import Backend, Launch, LaunchStatus, Platform  # noqa: TC001 - read at run time by `wire`
from sealift.provider.settings import checked_name

CONFIGURATION_LIMIT = 512 * 1024
VCPU_LIMIT = 512

_INTERFACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_CPU = re.compile(r"[A-Za-z0-9-]{1,32}")


class Phase(StrEnum):
    """The phase of a VM. `waiting`: launched and measured, with its processors paused until a secret or `resume`."""

    STARTING = "starting"
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class StartOrder:
    """A VM from an image. `launch` None: no evidence, no encryption.

    `cpu` is QEMU's name for the processors, measured with SEV-ES and SNP. `data_disk_mib`: the size of the
    disk that is made if the VM has none. `configuration`: the content of the VM's configuration disk, which the
    provider can read.
    """

    vm: str
    image: str
    launch: Launch | None
    tap: str
    mac: str
    vcpus: int = 2
    memory_mib: int = 2048
    cpu: str = "EPYC-Milan"
    kernel_hashes: bool = True
    data_disk_mib: int = 4096
    configuration: bytes = b""
    mtu: int = 1500

    def __post_init__(self) -> None:
        checked_name(self.vm, "the VM's name")
        checked_name(self.image, "the image's name")
        for holds, what in (
            (_INTERFACE.fullmatch(self.tap), "the network interface's name is not valid"),
            (_MAC.fullmatch(self.mac), "the MAC address is not six bytes in lower-case hexadecimal"),
            (_CPU.fullmatch(self.cpu), "the processor's name is not valid for QEMU"),
            (1 <= self.vcpus <= VCPU_LIMIT, f"a VM has 1 to {VCPU_LIMIT} processors"),
            (576 <= self.mtu <= 65535, "an interface carries packets of 576 to 65535 bytes"),
            (self.memory_mib >= 64, "a VM has at least 64 MiB of memory"),
            (self.data_disk_mib >= 1, "a data disk has at least 1 MiB"),
            (len(self.configuration) <= CONFIGURATION_LIMIT, "the configuration is larger than 512 KiB"),
        ):
            if not holds:
                raise UnusableInput(what, remedy="Correct the order")


@dataclass(frozen=True)
class EvidenceOrder:
    """Ask for evidence about the platform, and about a VM if one is named. `nonce`: 16 bytes, for a legacy report."""

    mode: Mode
    vm: str | None = None
    nonce: bytes = b""


@dataclass(frozen=True)
class InjectOrder:
    """Inject a launch secret into a waiting VM: header (52 bytes) and payload. `resume`: then let it run."""

    vm: str
    header: bytes
    payload: bytes
    resume: bool = True


@dataclass(frozen=True)
class VmOrder:
    """An order that only names a VM."""

    vm: str


@dataclass(frozen=True)
class ListOrder:
    """All VMs."""


@dataclass(frozen=True)
class VmState:
    """A VM as the provider sees it. `launch_id` is new at each start; `started_at` is in UTC."""

    vm: str
    image: str
    phase: Phase
    backend: Backend
    mode: Mode | None
    launch_id: str
    started_at: str
    pid: int | None
    note: str = ""


@dataclass(frozen=True)
class Evidence:
    """A provider's evidence. It is not trusted before a verdict on its bytes."""

    backend: Backend
    platform: Platform
    status: LaunchStatus | None = None
    measurement: bytes = b""
    attestation_report: bytes = b""
    launch_id: str = ""
    started_at: str = ""


@dataclass(frozen=True)
class VmList:
    """The answer to `list`."""

    vms: tuple[VmState, ...]


Order = StartOrder | EvidenceOrder | InjectOrder | VmOrder | ListOrder

ORDERS: dict[str, type[Order]] = {
    "start": StartOrder,
    "evidence": EvidenceOrder,
    "inject": InjectOrder,
    "resume": VmOrder,
    "stop": VmOrder,
    "list": ListOrder,
}
