"""The folder of a VM: its record, its processes' identities, its sockets and logs.

The record is written before anything is started, so that a killed start is recognized. A program that works on a VM
holds its lock, which the kernel releases when the program ends.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import SealiftError, UnusableInput
from sealift.files import read_bounded
from sealift.locks import alone
from sealift.private import write_private
from sealift.processor.interface import Backend  # noqa: TC001 - read at run time by `wire`
from sealift.processor.wire import LINE_LIMIT, from_json, from_line, to_json
from sealift.provider import processes
from sealift.provider.orders import Phase, StartOrder, VmState
from sealift.provider.settings import checked_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOG_END_BYTES = 2000


@dataclass(frozen=True)
class Record:
    """The order that started a VM, and its phase."""

    order: StartOrder
    phase: Phase
    backend: Backend
    launch_id: str
    started_at: str


@dataclass(frozen=True)
class Place:
    """A VM's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The VM's name."""
        return self.folder.name

    @property
    def qmp(self) -> Path:
        """QEMU's monitor."""
        return self.folder / "qmp"

    @property
    def host_socket(self) -> Path:
        """The emulated processor's socket for the host."""
        return self.folder / "host"

    @property
    def guest_socket(self) -> Path:
        """The emulated processor's socket for the guest."""
        return self.folder / "guest"

    @property
    def qemu_record(self) -> Path:
        """QEMU's identity."""
        return self.folder / "qemu.pid"

    @property
    def processor_record(self) -> Path:
        """The emulated processor's identity."""
        return self.folder / "processor.pid"

    def read(self) -> Record | None:
        """The record, or None if it is missing or cannot be read, because its writer was killed."""
        try:
            return from_json(Record, from_line(read_bounded(self.folder / "vm.json", 2 * LINE_LIMIT)))
        except UnusableInput:
            return None

    def write(self, record: Record) -> None:
        """Save the record, atomically, and sync it to the disk."""
        write_private(self.folder / "vm.json", json.dumps(to_json(record)).encode())

    def clear(self) -> None:
        """End the VM's processes and remove the folder. Data disks are in another folder and stay."""
        processes.end(self.qemu_record)
        processes.end(self.processor_record)
        shutil.rmtree(self.folder, ignore_errors=True)

    def state(self) -> VmState | None:
        """The current state of the VM; None if there are only remains of a killed start."""
        record = self.read()
        if record is None or record.phase is Phase.STARTING:
            return None
        pid = processes.living(self.qemu_record)
        launch = record.order.launch
        return VmState(
            vm=self.name,
            image=record.order.image,
            phase=record.phase if pid is not None else Phase.ENDED,
            backend=record.backend,
            mode=launch.mode if launch is not None else None,
            launch_id=record.launch_id,
            started_at=record.started_at,
            pid=pid,
            note="" if pid is not None else self.last_words(),
        )

    def last_words(self) -> str:
        """The last lines of QEMU's and the emulated processor's logs."""
        said = []
        for name in ("qemu.log", "processor.log"):
            path = self.folder / name
            if path.is_file():
                said += path.read_bytes()[-_LOG_END_BYTES:].decode(errors="replace").splitlines()[-3:]
        return "; ".join(line.strip() for line in said if line.strip())


@contextmanager
def at_work(state: Path, vm: str) -> Iterator[Place]:
    """The VM's folder, locked. Waits for another program that works on this VM."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = checked_name(vm, "the VM's name")
    with alone(state / f".{name}.lock"):
        yield Place(state / name)


def places(state: Path) -> list[Place]:
    """All VMs' folders."""
    if not state.is_dir():
        return []
    found = []
    for folder in sorted(state.iterdir()):
        try:
            checked_name(folder.name, "a folder")
        except SealiftError:
            continue
        found.append(Place(folder))
    return found
