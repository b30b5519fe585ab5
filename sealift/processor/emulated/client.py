"""The host's side of the emulated backend: commands over one socket, and QEMU's arguments for the other."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sealift.errors import CommandFailed, HostUnreachable
from sealift.evidence.launch.digest import Mode
from sealift.processor.interface import (
    GUEST_PORT,
    Backend,
    Launch,
    LaunchArguments,
    LaunchStatus,
    Platform,
    SevPlatform,
    SnpPlatform,
)
from sealift.processor.wire import LINE_LIMIT, from_json, from_line, to_line

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.evidence.formats.launch_secret import SecretPacket
    from sealift.processor.measured import Measured, MeasuredImage

STEP = "secure processor"
# The first command of a new chip waits until its lab root is made: two RSA-4096 keys, seconds on a slow machine.
ANSWER_TIMEOUT_S = 60


@dataclass(frozen=True)
class EmulatedProcessor:
    """A `Processor`. Commands are sent to `host_socket`; QEMU connects the VM to `guest_socket`."""

    host_socket: Path
    guest_socket: Path

    @property
    def backend(self) -> Backend:
        """Emulated."""
        return Backend.EMULATED

    def platform(self, mode: Mode) -> Platform:
        """See `Processor`."""
        said = self.call("platform", mode=mode)
        if mode is Mode.SNP:
            return from_json(SnpPlatform, said, "the platform's evidence")
        return from_json(SevPlatform, said, "the platform's evidence")

    def arguments(self, launch: Launch, image: MeasuredImage, directory: Path) -> LaunchArguments:  # noqa: ARG002
        """A separate serial port into the VM, and the kernel hashes at the address that the firmware reads.

        QEMU writes the hashes there only for a guest that is really encrypted. With these arguments the same firmware
        refuses another kernel, initrd or command line here, too. Memory is not encrypted.
        """
        words = [
            "-device",
            "virtio-serial-pci,id=sealift-processor",
            "-chardev",
            f"socket,id=sealift-processor,path={_escaped(self.guest_socket)}",
            "-device",
            f"virtserialport,bus=sealift-processor.0,chardev=sealift-processor,name={GUEST_PORT}",
        ]
        address = image.parsed_firmware().hash_table_address
        if address and (hashes := image.hashes()) is not None:
            table = directory / "kernel-hashes"
            table.write_bytes(hashes.pack())
            words += ["-device", f"loader,file={_escaped(table)},addr={address:#x},force-raw=on"]
        return LaunchArguments(tuple(words))

    def begin(self, launch: Launch, measured: Measured) -> None:
        """See `Processor`. The emulator reads and hashes the files that `measured` names."""
        self.call("begin", launch=launch, measured=measured)

    def status(self) -> LaunchStatus:
        """See `Processor`."""
        return from_json(LaunchStatus, self.call("status"), "the launch's status")

    def measurement(self) -> bytes:
        """See `Processor`."""
        return from_json(bytes, self.call("measurement"), "the measurement")

    def inject(self, packet: SecretPacket) -> None:
        """See `Processor`."""
        self.call("inject", header=packet.header(), payload=packet.payload)

    def attestation_report(self, nonce: bytes) -> bytes:
        """See `Processor`."""
        return from_json(bytes, self.call("attest", nonce=nonce), "the attestation report")

    def finish(self) -> None:
        """See `Processor`."""
        self.call("finish")

    def configure(self, **settings: Any) -> None:
        """Only for the emulation: change the chip's profile, to cause a rejection."""
        self.call("configure", changes=settings)

    def reset(self) -> None:
        """Only for the emulation: power off, for a guest without a QEMU."""
        self.call("reset")

    def call(self, name: str, **arguments: Any) -> Any:
        """Send one command. CommandFailed has the firmware's status; HostUnreachable means that there is no answer."""
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(ANSWER_TIMEOUT_S)
                line.connect(str(self.host_socket))
                line.sendall(to_line({"call": name, **arguments}))
                with line.makefile("rb") as answers:
                    answer = answers.readline(2 * LINE_LIMIT)
        except OSError as error:
            raise HostUnreachable(
                f"the emulated processor does not answer at {self.host_socket}: {error}",
                step=STEP,
                remedy="Stop the VM and start it again",
            ) from error
        if not answer.endswith(b"\n"):
            raise HostUnreachable(
                f"the emulated processor ended while it was asked to {name!r}",
                step=STEP,
                remedy="Stop the VM and start it again",
            )
        message = from_line(answer)
        if "error" in message:
            raise CommandFailed(
                f"the secure processor refused {name!r}: {message['error']}",
                status=message.get("status"),
                step=STEP,
            )
        return message["result"]


def _escaped(path: Path) -> str:
    """A value for those options of QEMU that take no JSON: commas are doubled."""
    return str(path).replace(",", ",,")
