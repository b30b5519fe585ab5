"""One SEV-SNP guest inside the emulated firmware: start, update, finish, and its requests.

SNP ABI, SNP_LAUNCH_START, _UPDATE and _FINISH, MSG_REPORT_REQ, MSG_KEY_REQ. Each launch has a new random
report id, so a report from before the VM's last start has another one.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats.guest_messages import KeySelection, pack_response, parse_request
from sealift.evidence.formats.id_block import IdAuth, IdBlock, parse_id_auth, parse_id_block
from sealift.evidence.formats.snp_report import PlatformBit, PolicyBit, Signer, SnpReport, sign_snp_report
from sealift.evidence.formats.tcb import Tcb, encode_tcb
from sealift.evidence.launch.digest import Mode
from sealift.evidence.verify.signatures import id_block_signed, id_key_signed
from sealift.processor.derived_key import derive_guest_key, pack_key_response, parse_key_request
from sealift.processor.emulated.profile import CPUIDS
from sealift.processor.emulated.refusal import FirmwareRefused, Status
from sealift.processor.interface import LaunchState

if TYPE_CHECKING:
    from sealift.processor.emulated.chip import Chip
    from sealift.processor.emulated.profile import Profile
    from sealift.processor.interface import SnpLaunch
    from sealift.processor.measured import Measured


@dataclass
class SnpGuest:
    """A guest from SNP_LAUNCH_START on. `launch_tcb` is the TCB of the firmware at that time."""

    chip: Chip
    profile: Profile
    launch: SnpLaunch
    digest: bytes
    launch_tcb: Tcb
    state: LaunchState = LaunchState.LAUNCH_UPDATE
    id_block: IdBlock | None = None
    id_auth: IdAuth | None = None
    report_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @classmethod
    def start(cls, chip: Chip, profile: Profile, launch: SnpLaunch, measured: Measured) -> SnpGuest:
        """Check the policy against the platform, and measure."""
        policy = launch.policy
        if not policy & PolicyBit.ALWAYS_ONE:
            raise FirmwareRefused(Status.INVALID_PARAM, "bit 17 of the policy must be 1")
        major, minor, _ = profile.version("current")
        if (policy >> 8 & 0xFF, policy & 0xFF) > (major, minor):
            raise FirmwareRefused(Status.POLICY_FAILURE, "the policy demands newer firmware than this")
        if profile.platform_info & PlatformBit.SMT and not policy & PolicyBit.SMT:
            raise FirmwareRefused(Status.POLICY_FAILURE, "the platform has SMT, which the policy forbids")
        if len(launch.host_data) != 32:
            raise FirmwareRefused(Status.INVALID_PARAM, "host data has 32 bytes")
        return cls(chip, profile, launch, measured.digest(Mode.SNP), profile.tcb("launch"))

    def finish(self) -> None:
        """Compare with the owner's id block, if he gave one, and let the guest run."""
        if self.state is not LaunchState.LAUNCH_UPDATE:
            raise FirmwareRefused(Status.INVALID_GUEST_STATE, f"the guest is in {self.state.value}")
        if self.launch.id_block or self.launch.id_auth:
            self.id_block, self.id_auth = self._check_identity()
        self.state = LaunchState.RUNNING

    def answer_report(self, payload: bytes) -> bytes:
        """The 4000 bytes for a request of 96; a refusal is a status in them."""
        try:
            request = parse_request(payload)
        except UnusableInput:
            return pack_response(b"", Status.INVALID_PARAM)
        if self.state is not LaunchState.RUNNING:
            return pack_response(b"", Status.INVALID_GUEST_STATE)
        signer = self.profile.signer
        asked = {KeySelection.VCEK: Signer.VCEK, KeySelection.VLEK: Signer.VLEK}.get(request.key)
        if signer is not Signer.NONE and asked not in {None, signer}:
            return pack_response(b"", Status.INVALID_KEY)
        return pack_response(self._report(request.user_data, request.vmpl))

    def answer_key(self, payload: bytes) -> bytes:
        """The 64 bytes for a derived key request of 32."""
        try:
            request = parse_key_request(payload)
        except UnusableInput:
            return pack_key_response(b"", Status.INVALID_PARAM)
        if self.state is not LaunchState.RUNNING:
            return pack_key_response(b"", Status.INVALID_GUEST_STATE)
        block = self.id_block or IdBlock(self.digest)
        if request.guest_svn > block.guest_svn:
            return pack_key_response(b"", Status.INVALID_PARAM)
        return pack_key_response(
            derive_guest_key(
                self.chip.secret, request, block, policy=self.launch.policy, measurement=self.digest
            )
        )

    def _check_identity(self) -> tuple[IdBlock, IdAuth]:
        try:
            block, auth = parse_id_block(self.launch.id_block), parse_id_auth(self.launch.id_auth)
        except UnusableInput as error:
            raise FirmwareRefused(Status.INVALID_PARAM, error.message) from error
        if not id_block_signed(auth, self.launch.id_block):
            raise FirmwareRefused(Status.BAD_SIGNATURE, "the id key did not sign the id block")
        if auth.has_author and not id_key_signed(auth):
            raise FirmwareRefused(Status.BAD_SIGNATURE, "the author key did not sign the id key")
        if block.policy != self.launch.policy:
            raise FirmwareRefused(Status.POLICY_FAILURE, "the id block names another policy")
        if not hmac.compare_digest(block.launch_digest, self.digest):
            raise FirmwareRefused(Status.BAD_MEASUREMENT, "the id block names another launch digest")
        return block, auth

    def _report(self, user_data: bytes, vmpl: int) -> bytes:
        profile = self.profile
        generation = profile.generation
        block, auth = self.id_block or IdBlock(bytes(48)), self.id_auth
        author = auth is not None and auth.has_author
        v5 = profile.report_version >= 5
        report = SnpReport(
            version=profile.report_version,
            guest_svn=block.guest_svn,
            policy=self.launch.policy,
            family_id=block.family_id,
            image_id=block.image_id,
            vmpl=vmpl,
            current_tcb=encode_tcb(profile.tcb("current"), generation),
            platform_info=profile.platform_info,
            key_info=profile.signer << 2 | int(profile.mask_chip) << 1 | int(author),
            report_data=user_data,
            measurement=self.digest,
            host_data=self.launch.host_data,
            id_key_digest=auth.id_key_digest if auth else bytes(48),
            author_key_digest=auth.author_key_digest if auth else bytes(48),
            report_id=self.report_id,
            report_id_ma=profile.migration_agent,
            reported_tcb=encode_tcb(profile.tcb("reported"), generation),
            cpuid=(profile.cpuid or CPUIDS[generation]) if profile.report_version >= 3 else None,
            chip_id=bytes(64) if profile.mask_chip else self.chip.chip_id(generation),
            committed_tcb=encode_tcb(profile.tcb("committed"), generation),
            current_version=profile.version("current"),
            committed_version=profile.version("committed"),
            launch_tcb=encode_tcb(self.launch_tcb, generation),
            launch_mitigations=profile.launch_mitigations if v5 else None,
            current_mitigations=profile.current_mitigations if v5 else None,
        )
        signed = sign_snp_report(report, self.chip.endorsement_key(profile))
        if profile.signer is Signer.NONE:
            # Firmware that masks its keys writes zeros instead of a signature.
            return signed.raw[: len(report.pack())].ljust(len(signed.raw), b"\0")
        return signed.raw
