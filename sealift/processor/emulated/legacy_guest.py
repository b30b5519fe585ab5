"""One legacy SEV guest inside the emulated firmware: start, measure, secret, finish (SEV API, chapter 6)."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sealift.errors import EvidenceRejected, UnusableInput
from sealift.evidence.formats.launch_measurement import Firmware, Measurement
from sealift.evidence.formats.launch_secret import parse_secret_packet, parse_secret_table
from sealift.evidence.formats.launch_session import parse_session
from sealift.evidence.formats.sev_attestation_report import build_attestation_report
from sealift.evidence.formats.sev_certificate import USAGE_PDH, parse_sev_certificate
from sealift.evidence.formats.sev_policy import minimum_api
from sealift.evidence.launch.measurement import measure
from sealift.evidence.launch.secret import unpack_secret
from sealift.evidence.launch.session import open_session
from sealift.processor.emulated.refusal import FirmwareRefused, Status
from sealift.processor.interface import LaunchState

if TYPE_CHECKING:
    from uuid import UUID

    from sealift.evidence.formats.launch_session import TransportKeys
    from sealift.processor.emulated.chip import Chip
    from sealift.processor.emulated.profile import Profile
    from sealift.processor.interface import SevLaunch
    from sealift.processor.measured import Measured


@dataclass
class LegacyGuest:
    """A guest from LAUNCH_START on. Its keys and secrets exist only in this process."""

    chip: Chip
    profile: Profile
    launch: SevLaunch
    digest: bytes
    keys: TransportKeys = field(repr=False)
    state: LaunchState = LaunchState.LAUNCH_UPDATE
    measured: Measurement | None = None
    secrets: dict[UUID, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def start(cls, chip: Chip, profile: Profile, launch: SevLaunch, measured: Measured) -> LegacyGuest:
        """LAUNCH_START with the owner's session, and LAUNCH_UPDATE_DATA and _VMSA with the measured data."""
        if minimum_api(launch.policy) > (profile.api_major, profile.api_minor):
            raise FirmwareRefused(Status.POLICY_FAILURE, "the policy demands newer firmware than this")
        try:
            owner = parse_sev_certificate(launch.owner_certificate)
            if owner.usage != USAGE_PDH:
                raise FirmwareRefused(Status.INVALID_CERTIFICATE, "the owner's certificate is not a PDH")
            keys = open_session(chip.pdh, owner, parse_session(launch.session), launch.policy)
        except EvidenceRejected as error:
            raise FirmwareRefused(Status.BAD_MEASUREMENT, error.message) from error
        except UnusableInput as error:
            raise FirmwareRefused(Status.INVALID_CERTIFICATE, error.message) from error
        return cls(chip, profile, launch, measured.digest(launch.mode), keys)

    def measure(self) -> bytes:
        """LAUNCH_MEASURE. There is one nonce for each launch, so a second call gives the same 48 bytes."""
        if self.measured is None:
            self._demand(LaunchState.LAUNCH_UPDATE)
            profile = self.profile
            version = Firmware(profile.api_major, profile.api_minor, profile.build)
            nonce = secrets.token_bytes(16)
            self.measured = measure(self.keys.tik, version, self.launch.policy, self.digest, nonce)
            self.state = LaunchState.LAUNCH_SECRET
        return self.measured.pack()

    def inject(self, header: bytes, payload: bytes) -> None:
        """LAUNCH_SECRET: the packet's MAC covers this launch's measurement."""
        if self.measured is None:
            raise FirmwareRefused(Status.INVALID_GUEST_STATE, "the guest has not been measured")
        self._demand(LaunchState.LAUNCH_SECRET)
        try:
            packet = parse_secret_packet(header, payload)
            table = parse_secret_table(unpack_secret(self.keys, self.measured.mac, packet))
        except EvidenceRejected as error:
            raise FirmwareRefused(Status.BAD_MEASUREMENT, error.message) from error
        except UnusableInput as error:
            raise FirmwareRefused(Status.INVALID_PARAM, error.message) from error
        self.secrets.update(table)

    def finish(self) -> None:
        """LAUNCH_FINISH. If the guest was not measured yet, it is measured now, as QEMU does."""
        self.measure()
        self._demand(LaunchState.LAUNCH_SECRET)
        self.state = LaunchState.RUNNING

    def attest(self, nonce: bytes) -> bytes:
        """ATTESTATION: the digest of a measured or running guest, signed by the PEK."""
        if self.measured is None:
            raise FirmwareRefused(Status.INVALID_GUEST_STATE, "the guest has not been measured")
        try:
            report = build_attestation_report(
                self.chip.pek, nonce=nonce, digest=self.digest, policy=self.launch.policy
            )
        except UnusableInput as error:
            raise FirmwareRefused(Status.INVALID_PARAM, error.message) from error
        return report.raw

    @property
    def launch_id(self) -> str:
        """An identifier of this launch, for logs."""
        return hashlib.sha256(b"legacy launch\0" + self.launch.session).hexdigest()[:16]

    def _demand(self, state: LaunchState) -> None:
        if self.state is not state:
            raise FirmwareRefused(
                Status.INVALID_GUEST_STATE, f"the guest is in {self.state.value}, not in {state.value}"
            )
