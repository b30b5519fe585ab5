"""What a secure processor does for one virtual machine, for both backends.

The host's side is `Processor`: evidence about the platform, the arguments that QEMU needs, the launch,
its measurement, secrets. The guest's side is `GuestProcessor`: reports and injected secrets.
Every launch has the same order: `arguments`, `begin` (the VM exists, none of its processors runs),
`measurement` and `inject` (legacy SEV only), `finish`, then QEMU lets the processors run.

Refusals by the processor are CommandFailed with the firmware's status (SEV API, table "Status codes").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

from sealift.evidence.formats.launch_measurement import Firmware
from sealift.evidence.formats.platform_chain import PlatformChain, collect_platform, split_certificates
from sealift.evidence.formats.sev_policy import SevPolicy
from sealift.evidence.launch.digest import Mode

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.evidence.formats.launch_secret import SecretPacket
    from sealift.processor.measured import Measured, MeasuredImage

GUEST_PORT = "org.sealift.sev-guest"
"""Name of the virtio-serial port behind which the emulated processor answers a VM."""

GUEST_SOCKET = "/run/sealift/sev-guest"
"""The socket on which it answers a namespaced host."""

SNP_POLICY_DEFAULT = 0x30000
SEV_POLICY_DEFAULT = int(SevPolicy.NO_DEBUG | SevPolicy.NO_KEY_SHARING | SevPolicy.ES | SevPolicy.NO_SEND)


class Backend(StrEnum):
    """The backend."""

    QEMU = "qemu"
    EMULATED = "emulated"


class LaunchState(StrEnum):
    """The states of a launch, with QMP's names (`SevState`)."""

    UNINIT = "uninit"
    LAUNCH_UPDATE = "launch-update"
    LAUNCH_SECRET = "launch-secret"  # noqa: S105 - the name of a state
    RUNNING = "running"


@dataclass(frozen=True)
class SevPlatform:
    """The certificates of a legacy platform as bytes, and its firmware's version.

    PDH, PEK, OCA, CEK have 2084 bytes; ASK and ARK 1600 or 832, or empty if the host does not have
    them: they are AMD's, and the owner can fetch them from AMD.
    """

    pdh: bytes
    pek: bytes
    oca: bytes
    cek: bytes
    ask: bytes = b""
    ark: bytes = b""

    def chain(self, *amd: bytes) -> PlatformChain:
        """The chain for the verifier. `amd`: ASK, ARK or both in one, if the host does not have them."""
        blobs = [self.pdh, self.pek, self.oca, self.cek, self.ask, self.ark, *amd]
        return collect_platform(each for blob in blobs if blob for each in split_certificates(blob))


@dataclass(frozen=True)
class SnpPlatform:
    """The certificate table of a host (GHCB 2.0, section 4.1.8.1): VCEK or VLEK, ASK, ARK, perhaps a CRL.

    Empty if the host has none: the owner then fetches the certificates from AMD by the report's chip id.
    """

    certificate_table: bytes = b""


Platform = SevPlatform | SnpPlatform


@dataclass(frozen=True)
class SevLaunch:
    """The owner's data for a legacy guest: policy (32 bits), session (128 bytes), certificate (2084)."""

    policy: int
    session: bytes
    owner_certificate: bytes

    @property
    def mode(self) -> Mode:
        """SEV-ES if the policy's bit for it is set."""
        return Mode.SEVES if self.policy & SevPolicy.ES else Mode.SEV


@dataclass(frozen=True)
class SnpLaunch:
    """The owner's data for an SNP guest: policy, id block (96 bytes) with its authentication (4096)."""

    policy: int = SNP_POLICY_DEFAULT
    id_block: bytes = b""
    id_auth: bytes = b""
    host_data: bytes = bytes(32)

    @property
    def mode(self) -> Mode:
        """SNP."""
        return Mode.SNP


Launch = SevLaunch | SnpLaunch


@dataclass(frozen=True)
class LaunchArguments:
    """The arguments of QEMU for a launch.

    `confidential_guest_support` is the machine's option of that name, an object's id; `shared_memory`
    selects a memfd backend; `smm` is False if it must be off; `words` are further options.
    """

    words: tuple[str, ...]
    confidential_guest_support: str | None = None
    shared_memory: bool = False
    smm: bool = True


@dataclass(frozen=True)
class LaunchStatus:
    """The state of a launch, its policy, and its firmware's version (API major, minor, build)."""

    state: LaunchState
    mode: Mode | None
    policy: int
    api_major: int
    api_minor: int
    build: int

    @property
    def firmware(self) -> Firmware:
        """The version that is part of a legacy measurement."""
        return Firmware(self.api_major, self.api_minor, self.build)


class Processor(Protocol):
    """The host's side, for one VM."""

    @property
    def backend(self) -> Backend:
        """The backend. Only reports and logs may use this."""

    def platform(self, mode: Mode) -> Platform:
        """Evidence about the platform; it needs no launch."""

    def arguments(self, launch: Launch, image: MeasuredImage, directory: Path) -> LaunchArguments:
        """QEMU's arguments. Files that they name are written to `directory`; none contains a secret."""

    def begin(self, launch: Launch, measured: Measured) -> None:
        """Start the launch and measure. A real processor has done this when QEMU started; then it is only checked."""

    def status(self) -> LaunchStatus:
        """The state of the launch."""

    def measurement(self) -> bytes:
        """Legacy SEV: 48 bytes, MAC and nonce. Before `finish`."""

    def inject(self, packet: SecretPacket) -> None:
        """Legacy SEV: inject a secret into the guest. After `measurement`, before `finish`."""

    def attestation_report(self, nonce: bytes) -> bytes:
        """Legacy SEV: 208 bytes over 16 bytes of nonce, for a guest that has been measured."""

    def finish(self) -> None:
        """End the launch. With SNP the id block is compared here: another digest is refused."""


@dataclass(frozen=True)
class GuestReport:
    """The answer to a guest: the report (1184 bytes), a certificate table or nothing, and the backend's name."""

    report: bytes
    certificate_table: bytes
    answered_by: Literal["tsm", "ioctl", "emulated"]


class GuestProcessor(Protocol):
    """The guest's side. Inside a VM, `sealift_guest/processor.py` implements it."""

    def report(self, report_data: bytes) -> GuestReport:
        """An SNP report over 64 bytes."""

    def secret(self, guid: str) -> bytes:
        """The secret that was injected with that GUID before the guest ran."""
