"""The real backend: AMD's secure processor, driven by QEMU's `sev-guest` and `sev-snp-guest` objects.

QMP commands and their types: QEMU 10, qapi/misc-target.json; objects: qapi/qom.json (SevGuestProperties,
SevSnpGuestProperties). All binary data is base64 there. The meaning of an answer depends on `sev-type`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import socket
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sealift.errors import CommandFailed, HostUnreachable, UnusableInput
from sealift.evidence.formats import launch_measurement, sev_attestation_report, sev_certificate
from sealift.evidence.formats.id_block import parse_id_auth, parse_id_block
from sealift.evidence.formats.layout import sized
from sealift.evidence.formats.platform_chain import collect_platform, split_certificates
from sealift.evidence.formats.sev_policy import SevPolicy
from sealift.evidence.launch.digest import Mode
from sealift.files import read_bounded
from sealift.processor.interface import (
    Backend,
    Launch,
    LaunchArguments,
    LaunchState,
    LaunchStatus,
    Platform,
    SevLaunch,
    SevPlatform,
    SnpLaunch,
    SnpPlatform,
)
from sealift.processor.monitor import Monitor, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sealift.evidence.formats.launch_secret import SecretPacket
    from sealift.processor.measured import Measured, MeasuredImage

QEMU = "/usr/bin/qemu-system-x86_64"
OBJECT_ID = "sev0"
STEP = "secure processor"

_END_TIMEOUT_S = 10
_FILE_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Capabilities:
    """`query-sev-capabilities`: PDH, PEK‖OCA‖CEK, the chip's id, and two numbers that the objects need."""

    pdh: bytes
    cert_chain: bytes
    cpu0_id: bytes
    cbitpos: int
    reduced_phys_bits: int


@dataclass(frozen=True)
class QemuProcessor:
    """A `Processor`.

    `qmp` is the VM's monitor. `amd_certificates`: a file with the legacy ASK and ARK, `certificate_table`:
    a file with the table for SNP. Both are optional, because the owner can fetch these certificates from AMD.
    """

    qmp: Path
    qemu: Sequence[str] = (QEMU,)
    amd_certificates: Path | None = None
    certificate_table: Path | None = None
    known: Capabilities | None = field(default=None, repr=False)

    @property
    def backend(self) -> Backend:
        """QEMU."""
        return Backend.QEMU

    @cached_property
    def capabilities(self) -> Capabilities:
        """The host's capabilities. They come from a QEMU without a machine, which is asked once."""
        return self.known or probe(self.qemu)

    def platform(self, mode: Mode) -> Platform:
        """See `Processor`."""
        if mode is Mode.SNP:
            table = self.certificate_table
            return SnpPlatform(read_bounded(table, _FILE_LIMIT) if table else b"")
        chain = collect_platform(split_certificates(self.capabilities.cert_chain))
        if chain.pek is None or chain.oca is None or chain.cek is None:
            raise UnusableInput(
                "QEMU's certificate chain is not PEK, OCA and CEK", step=STEP, remedy="Update QEMU or kernel"
            )
        amd = self.amd_certificates
        found = collect_platform(split_certificates(read_bounded(amd, _FILE_LIMIT))) if amd else None
        return SevPlatform(
            pdh=sized(self.capabilities.pdh, sev_certificate.SIZE, "the PDH"),
            pek=chain.pek.raw,
            oca=chain.oca.raw,
            cek=chain.cek.raw,
            ask=found.ask.raw if found and found.ask else b"",
            ark=found.ark.raw if found and found.ark else b"",
        )

    def arguments(self, launch: Launch, image: MeasuredImage, directory: Path) -> LaunchArguments:
        """The object, with the numbers of this host's processor. Session and certificate go to files."""
        options: dict[str, str | int] = {
            "id": OBJECT_ID,
            "cbitpos": self.capabilities.cbitpos,
            "reduced-phys-bits": self.capabilities.reduced_phys_bits,
            "policy": f"{launch.policy:#x}",
            "kernel-hashes": "on" if image.kernel is not None and image.kernel_hashes else "off",
        }
        if isinstance(launch, SevLaunch):
            for name, option, content in (
                ("session.b64", "session-file", launch.session),
                ("owner.b64", "dh-cert-file", launch.owner_certificate),
            ):
                path = directory / name
                path.write_bytes(base64.b64encode(content))
                options[option] = str(path).replace(",", ",,")
            return LaunchArguments(_object("sev-guest", options), OBJECT_ID, smm=False)
        options.update(_identity(launch))
        return LaunchArguments(_object("sev-snp-guest", options), OBJECT_ID, shared_memory=True, smm=False)

    def begin(self, launch: Launch, measured: Measured) -> None:  # noqa: ARG002 - QEMU measured its own files
        """See `Processor`. QEMU has launched the guest already; this checks that it launched the requested one."""
        status = self.status()
        if status.mode is not launch.mode or status.policy != launch.policy:
            said = f"{status.mode.value if status.mode else 'no'} guest with policy {status.policy:#x}"
            raise CommandFailed(
                f"QEMU launched a {said}, not {launch.mode.value} with {launch.policy:#x}",
                step=STEP,
                remedy="Stop the VM and start it again",
            )

    def status(self) -> LaunchStatus:
        """See `Processor`."""
        said = self._execute("query-sev")
        kind = said.get("sev-type", "sev")
        if not said.get("enabled"):
            raise refusal("query-sev", "SEV is not enabled")
        policy = said["policy"] if kind == "sev" else said["snp-policy"]
        legacy = Mode.SEVES if policy & SevPolicy.ES else Mode.SEV
        mode = legacy if kind == "sev" else Mode.SNP
        return LaunchStatus(
            LaunchState(said["state"]), mode, policy, said["api-major"], said["api-minor"], said["build-id"]
        )

    def measurement(self) -> bytes:
        """See `Processor`."""
        self._demand_legacy("query-sev-launch-measure")
        return sized(
            _bytes(self._execute("query-sev-launch-measure"), "data"),
            launch_measurement.SIZE,
            "a measurement",
        )

    def inject(self, packet: SecretPacket) -> None:
        """See `Processor`. The firmware's own table has the address of the secret in the guest's memory."""
        self._demand_legacy("sev-inject-launch-secret")
        self._execute(
            "sev-inject-launch-secret",
            packet_header=base64.b64encode(packet.header()).decode(),
            secret=base64.b64encode(packet.payload).decode(),
        )

    def attestation_report(self, nonce: bytes) -> bytes:
        """See `Processor`."""
        self._demand_legacy("query-sev-attestation-report")
        said = self._execute(
            "query-sev-attestation-report", mnonce=base64.b64encode(sized(nonce, 16, "a nonce")).decode()
        )
        return sized(_bytes(said, "data"), sev_attestation_report.SIZE, "an attestation report")

    def finish(self) -> None:
        """See `Processor`. QEMU does this itself when the VM is continued."""

    def _demand_legacy(self, command: str) -> None:
        if self.status().mode is Mode.SNP:
            raise UnusableInput(
                f"{command} is a command for legacy SEV, and this is an SNP guest",
                step=STEP,
                remedy="An SNP guest gets its report and its keys from inside",
            )

    def _execute(self, command: str, **arguments: Any) -> Any:
        return Monitor(self.qmp).execute(command, **arguments)


def probe(qemu: Sequence[str] = (QEMU,)) -> Capabilities:
    """Ask a QEMU without a machine for the host's capabilities. PrerequisiteMissing if the host has no SEV."""
    ours, its = socket.socketpair()
    with ours, its:
        words = [
            *(
                *qemu,
                "-machine",
                "none,accel=kvm",
                "-no-user-config",
                "-nodefaults",
                "-display",
                "none",
                "-S",
            ),
            *("-chardev", f"socket,id=qmp,fd={its.fileno()}", "-mon", "chardev=qmp,mode=control"),
        ]
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[its.fileno()],
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise refusal("start", f"{words[0]} does not start: {error.strerror}") from error
        its.close()
        try:
            return read_capabilities(Monitor(ours).execute("query-sev-capabilities"))
        except HostUnreachable as silent:
            # A QEMU that finds no KVM ends before its first word. What it said is read once: communicate() fails the
            # second time.
            said = _last_words(process)
            raise refusal("start", said or str(silent)) from silent
        finally:
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()


def _last_words(process: subprocess.Popen[str]) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_TIMEOUT_S)
    process.kill()
    return process.communicate()[1]


def read_capabilities(said: dict[str, Any]) -> Capabilities:
    """The answer to `query-sev-capabilities`."""
    return Capabilities(
        pdh=_bytes(said, "pdh"),
        cert_chain=_bytes(said, "cert-chain"),
        cpu0_id=_bytes(said, "cpu0-id"),
        cbitpos=int(said["cbitpos"]),
        reduced_phys_bits=int(said["reduced-phys-bits"]),
    )


def _identity(launch: SnpLaunch) -> dict[str, str]:
    options = {"host-data": base64.b64encode(sized(launch.host_data, 32, "host data")).decode()}
    if launch.id_block or launch.id_auth:
        parse_id_block(launch.id_block)
        author = parse_id_auth(launch.id_auth).has_author
        options |= {
            "id-block": base64.b64encode(launch.id_block).decode(),
            "id-auth": base64.b64encode(launch.id_auth).decode(),
            "author-key-enabled": "on" if author else "off",
        }
    return options


def _object(kind: str, options: dict[str, str | int]) -> tuple[str, str]:
    return "-object", ",".join([kind, *(f"{name}={value}" for name, value in options.items())])


def _bytes(said: Any, name: str) -> bytes:
    try:
        return base64.b64decode(said[name], validate=True)
    except (KeyError, TypeError, binascii.Error, ValueError) as error:
        raise UnusableInput(f"QEMU's answer has no base64 under {name!r}", step=STEP) from error
