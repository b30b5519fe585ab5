"""The execution of each order. If a step is killed, the next order detects this and continues."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sealift.errors import CommandFailed, HostUnreachable, PrerequisiteMissing, UnusableInput
from sealift.evidence.formats.launch_secret import parse_secret_packet
from sealift.evidence.launch.digest import Mode
from sealift.processor.interface import Backend, LaunchState, LaunchStatus, Platform, Processor
from sealift.processor.measured import MeasuredImage
from sealift.processor.monitor import Monitor, refusal
from sealift.processor.wire import from_json
from sealift.provider import processes
from sealift.provider.image import Image, read_image
from sealift.provider.machine import machine_words
from sealift.provider.orders import (
    ORDERS,
    Evidence,
    EvidenceOrder,
    InjectOrder,
    ListOrder,
    Order,
    Phase,
    StartOrder,
    VmList,
    VmOrder,
    VmState,
)
from sealift.provider.record import Place, Record, at_work, places

if TYPE_CHECKING:
    from sealift.provider.settings import Settings

QEMU_START_TIMEOUT_S = 30
_POLL_S = 0.02


class Provider:
    """A hypervisor's host. Different processes may execute orders on different VMs at the same time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def obey(self, name: str, fields: dict[str, Any]) -> Any:
        """Execute an order, by its name and the fields of its JSON."""
        kind = ORDERS.get(name)
        if kind is None:
            raise UnusableInput(f"there is no order {name[:40]!r}", remedy=f"Orders are {', '.join(ORDERS)}")
        order: Order = from_json(kind, fields, f"{name!r}")
        match order:
            case StartOrder():
                return self.start(order)
            case EvidenceOrder():
                return self.evidence(order)
            case InjectOrder():
                return self.inject(order)
            case ListOrder():
                return self.list_vms()
            case VmOrder():
                return self.resume(order) if name == "resume" else self.stop(order)

    def start(self, order: StartOrder) -> VmState:
        """Start a VM: an SNP guest runs, a legacy guest waits for its secret. The same order again changes nothing.

        Remains of a killed start are removed first. A VM that has ended is started again, as a new launch.
        """
        self._check(order)
        image = read_image(self.settings.images, order.image)
        with at_work(self.settings.state, order.vm) as place:
            there = place.state()
            if there is not None and there.phase is not Phase.ENDED:
                record = place.read()
                if record is not None and record.order == order:
                    return there
                raise CommandFailed(
                    f"the VM {order.vm!r} is {there.phase.value} already, from another order",
                    step="start",
                    remedy="Stop it first",
                )
            place.clear()
            place.folder.mkdir(mode=0o700)
            record = Record(
                order=order,
                phase=Phase.STARTING,
                backend=self.settings.processor,
                launch_id=secrets.token_hex(16),
                started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            )
            try:
                return self._start(place, record, image)
            except BaseException:
                place.clear()
                raise

    def evidence(self, order: EvidenceOrder) -> Evidence:
        """Certificates. For a waiting or running VM also the launch's status, measurement and legacy report."""
        if order.vm is None:
            return Evidence(self.settings.processor, self._platform(order.mode))
        with at_work(self.settings.state, order.vm) as place:
            record = self._living(place)
            processor = self._processor(place, record.backend)
            status = processor.status()
            legacy = status.mode in {Mode.SEV, Mode.SEVES}
            return Evidence(
                backend=record.backend,
                platform=processor.platform(order.mode),
                status=status,
                measurement=processor.measurement() if legacy else b"",
                attestation_report=processor.attestation_report(order.nonce)
                if legacy and order.nonce
                else b"",
                launch_id=record.launch_id,
                started_at=record.started_at,
            )

    def inject(self, order: InjectOrder) -> VmState:
        """Inject a secret into a waiting VM and let it run."""
        packet = parse_secret_packet(order.header, order.payload)
        with at_work(self.settings.state, order.vm) as place:
            record = self._living(place)
            if record.phase is not Phase.WAITING:
                raise CommandFailed(
                    f"the VM {order.vm!r} runs already: a secret can be injected only before that",
                    step="inject",
                    remedy="Stop it and start it again with a new session",
                )
            self._processor(place, record.backend).inject(packet)
            if order.resume:
                self._run(place, record)
            return self._state(place)

    def resume(self, order: VmOrder) -> VmState:
        """Let a waiting VM run."""
        with at_work(self.settings.state, order.vm) as place:
            record = self._living(place)
            if record.phase is Phase.WAITING:
                self._run(place, record)
            return self._state(place)

    def stop(self, order: VmOrder) -> VmList:
        """End a VM like a loss of power. Its data disk stays. A VM that does not exist counts as ended."""
        with at_work(self.settings.state, order.vm) as place:
            place.clear()
        return self.list_vms()

    def list_vms(self) -> VmList:
        """All VMs, except those that are being started at this moment."""
        return VmList(tuple(state for place in places(self.settings.state) if (state := place.state())))

    def _start(self, place: Place, record: Record, image: Image) -> VmState:
        order, launch = record.order, record.order.launch
        place.write(record)
        if launch is None:
            self._start_qemu(place, machine_words(self.settings, place, order, image, None))
            self._let_go(place)
            place.write(replace(record, phase=Phase.RUNNING))
            return self._state(place)
        if record.backend is Backend.EMULATED:
            self._start_emulated(place)
        processor = self._processor(place, record.backend)
        measured = measured_image(order, image)
        arguments = processor.arguments(launch, measured, place.folder)
        self._start_qemu(place, machine_words(self.settings, place, order, image, arguments))
        processor.begin(launch, measured)
        if launch.mode is Mode.SNP:
            self._run(place, record)
        else:
            place.write(replace(record, phase=Phase.WAITING))
        return self._state(place)

    def _run(self, place: Place, record: Record) -> None:
        processor = self._processor(place, record.backend)
        if processor.status().state is not LaunchState.RUNNING:
            processor.finish()
        self._let_go(place)
        place.write(replace(record, phase=Phase.RUNNING))

    def _let_go(self, place: Place) -> None:
        """Make QEMU run the processors. With real SEV, QEMU first ends the launch, which may be refused."""
        try:
            Monitor(place.qmp).execute("cont")
        except HostUnreachable as error:
            if processes.living(place.qemu_record) is None:
                raise refusal("cont", place.last_words()) from error
            raise

    def _start_qemu(self, place: Place, words: list[str]) -> None:
        process = processes.spawn(words, place.qemu_record, place.folder / "qemu.log")
        deadline = time.monotonic() + QEMU_START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise refusal("start", place.last_words() or f"status {process.returncode}")
            if place.qmp.exists():
                with suppress(HostUnreachable):
                    Monitor(place.qmp).execute("query-status")
                    return
            time.sleep(_POLL_S)
        raise CommandFailed(
            f"QEMU did not answer within {QEMU_START_TIMEOUT_S} s: {place.last_words()}", step="start"
        )

    def _start_emulated(self, place: Place) -> None:
        from sealift.processor.emulated import process  # noqa: PLC0415 - only where it is emulated

        with process.listening(place.host_socket, place.guest_socket) as sockets:
            processes.spawn(
                process.emulator_words(
                    self.settings.chip,
                    sockets,
                    authority=self.settings.authority,
                    profile=self.settings.profile,
                    terminate=True,
                ),
                place.processor_record,
                place.folder / "processor.log",
                inherited=[each.fileno() for each in sockets],
                environment=process.emulator_environment(),
            )

    def _platform(self, mode: Mode) -> Platform:
        if self.settings.processor is Backend.EMULATED:
            from sealift.processor.emulated.local import platform_here  # noqa: PLC0415 - the same

            return platform_here(self.settings.chip, self.settings.authority, self.settings.profile, mode)
        return self._real(self.settings.state / "none").platform(mode)

    def _processor(self, place: Place, backend: Backend) -> Processor:
        if backend is Backend.EMULATED:
            from sealift.processor.emulated.client import EmulatedProcessor  # noqa: PLC0415 - the same

            return EmulatedProcessor(place.host_socket, place.guest_socket)
        return self._real(place.qmp)

    def _real(self, qmp: Any) -> Processor:
        from sealift.processor.qemu import QemuProcessor  # noqa: PLC0415 - only where it is real

        settings = self.settings
        return QemuProcessor(qmp, settings.qemu, settings.amd_certificates, settings.certificate_table)

    def _check(self, order: StartOrder) -> None:
        settings = self.settings
        if settings.taps and order.tap not in settings.taps:
            raise UnusableInput(
                f"{order.tap!r} is not an interface for VMs here",
                remedy=f"Use one of {', '.join(settings.taps)}",
            )
        if order.memory_mib > settings.memory_limit_mib or order.data_disk_mib > settings.disk_limit_mib:
            raise UnusableInput(
                f"a VM here has at most {settings.memory_limit_mib} MiB of memory and "
                f"{settings.disk_limit_mib} MiB of disk",
                remedy="Ask for less",
            )

    def _living(self, place: Place) -> Record:
        record, state = place.read(), place.state()
        if record is None or state is None:
            raise UnusableInput(f"there is no VM {place.name!r}", remedy="Start it; `list` shows all VMs")
        if state.phase is Phase.ENDED:
            raise CommandFailed(
                f"the VM {place.name!r} has ended: {state.note or 'without a message'}",
                remedy="Start it again",
            )
        if record.order.launch is None:
            raise PrerequisiteMissing(f"the VM {place.name!r} was started without a secure processor")
        return record

    def _state(self, place: Place) -> VmState:
        state = place.state()
        if state is None or state.phase is Phase.ENDED:
            raise CommandFailed(
                f"the VM {place.name!r} has ended: {place.last_words() or 'without a message'}"
            )
        return state


def measured_image(order: StartOrder, image: Image) -> MeasuredImage:
    """The measured parts of an image and an order."""
    return MeasuredImage(
        firmware=image.firmware,
        kernel=image.kernel,
        initrd=image.initrd,
        append=image.append,
        kernel_hashes=order.kernel_hashes,
        vcpus=order.vcpus,
        cpu=order.cpu,
    )


def describe_status(status: LaunchStatus) -> str:
    """A launch as readable text."""
    mode = status.mode.value if status.mode else "no guest"
    return f"{mode}, {status.state.value}, firmware {status.api_major}.{status.api_minor}.{status.build}"
