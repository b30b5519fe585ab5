"""The verdict on a legacy SEV launch: whether the platform measured what the owner expects, under his policy."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sealift.evidence.formats.sev_policy import SevPolicy
from sealift.evidence.launch.measurement import measurement_holds
from sealift.evidence.verify.policy import version_numbers
from sealift.evidence.verify.signatures import attestation_report_signed_by
from sealift.evidence.verify.verdict import NO_INTEGRITY, Findings, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.evidence.formats.launch_measurement import Firmware, Measurement
    from sealift.evidence.formats.sev_attestation_report import AttestationReport
    from sealift.evidence.formats.sev_certificate import SevCertificate
    from sealift.evidence.verify.policy import Policy, SevRules


@dataclass(frozen=True, slots=True)
class LaunchEvidence:
    """A measurement with the firmware and policy of its launch. `digests`: those that the owner computed."""

    measurement: Measurement
    firmware: Firmware
    policy: int
    digests: tuple[bytes, ...]
    tik: bytes = field(repr=False)
    boots_kernel: bool = True
    has_kernel_hashes: bool = True


def verify_launch(evidence: LaunchEvidence, policy: Policy) -> Verdict:
    """Check the MAC over the expected digests, and the launch policy.

    `genuine` means that a platform which knows the session's TIK measured one of the digests. Only the platform whose
    chain was verified before the session was made can know the TIK.
    """
    findings = Findings()
    rules = policy.sev
    allowed = [bytes.fromhex(each) for each in rules.launch_digests]
    digests = list(evidence.digests) or allowed
    holds = [
        measurement_holds(evidence.measurement, evidence.tik, evidence.firmware, evidence.policy, digest)
        for digest in digests
    ]
    findings.proof(
        "measurement",
        holds=any(holds),
        demanded=" or ".join(digest.hex() for digest in digests) or "a digest to compare with",
        found="measured" if any(holds) else "something else, or by another platform",
        detail="the measurement is not of an expected digest, or was not made with this launch's TIK, "
        "firmware version and policy",
    )
    if allowed:
        # The digest must be one that the caller expects, and one that the policy allows.
        measured = [digest for digest, held in zip(digests, holds, strict=True) if held]
        _check_digest(findings, measured[0] if measured else b"", allowed)
    api = (evidence.firmware.api_major, evidence.firmware.api_minor)
    findings.demand(
        "api",
        holds=api >= version_numbers(rules.min_api),
        demanded=f"{rules.min_api} or later",
        found=f"{api[0]}.{api[1]}",
        detail=f"the firmware's API {api[0]}.{api[1]} is below {rules.min_api}",
    )
    if rules.min_build is None:
        findings.leave_open("build")
    else:
        findings.demand(
            "build",
            holds=evidence.firmware.build >= rules.min_build,
            demanded=f"{rules.min_build} or later",
            found=str(evidence.firmware.build),
            detail=f"the firmware's build {evidence.firmware.build} is below {rules.min_build}",
        )
    _check_launch_policy(findings, evidence.policy, rules)
    if rules.require_kernel_hashes:
        findings.demand(
            "kernel_hashes",
            holds=evidence.has_kernel_hashes or not evidence.boots_kernel,
            demanded="measured kernel hashes with a direct kernel boot",
            found="measured" if evidence.has_kernel_hashes else "none",
            detail="the machine boots a kernel that was not measured",
        )
    else:
        findings.leave_open("kernel_hashes")
    return findings.verdict("sev-launch", labels=(NO_INTEGRITY,))


def verify_attestation(
    report: AttestationReport,
    pek: SevCertificate,
    policy: Policy,
    *,
    nonce: bytes,
    digests: Sequence[bytes] = (),
) -> Verdict:
    """Check a running guest's ATTESTATION report under the PEK of a chain that was verified before."""
    findings = Findings()
    rules = policy.sev
    signed = attestation_report_signed_by(report, pek)
    findings.proof(
        "report_signature",
        holds=signed,
        demanded="signed by the platform's PEK",
        found="signed" if signed else "not signed by it",
        detail="the platform's PEK did not sign this report",
    )
    findings.demand(
        "nonce",
        holds=hmac.compare_digest(report.nonce, nonce),
        demanded=nonce.hex(),
        found=report.nonce.hex(),
        detail="the report answers another nonce: it may be a replay",
    )
    allowed = [bytes.fromhex(each) for each in rules.launch_digests]
    if not digests and not allowed:
        findings.leave_open("launch_digest")
    for wanted in (digests, allowed):
        if wanted:
            _check_digest(findings, report.digest, wanted)
    _check_launch_policy(findings, report.policy, rules)
    return findings.verdict("sev-attestation", labels=(NO_INTEGRITY,))


def _check_digest(findings: Findings, found: bytes, wanted: Sequence[bytes]) -> None:
    matches = [hmac.compare_digest(found, each) for each in wanted]
    findings.demand(
        "launch_digest",
        holds=any(matches),
        demanded=" or ".join(each.hex() for each in wanted),
        found=found.hex() or "none of those expected",
        detail="the guest was launched with another digest than expected",
    )


def _check_launch_policy(findings: Findings, launch_policy: int, rules: SevRules) -> None:
    for name, demand in rules.launch_policy:
        check = f"launch_policy.{name}"
        if demand == "allow":
            findings.leave_open(check)
            continue
        present = bool(launch_policy & SevPolicy[name.upper()])
        findings.demand(
            check,
            holds=present is (demand == "require"),
            demanded="set" if demand == "require" else "not set",
            found="set" if present else "not set",
            detail=f"{name.replace('_', ' ')} is {'' if present else 'not '}set in the launch policy",
        )
    # Bits 15:6 are reserved; 31:16 hold the lowest API version.
    unknown = launch_policy & 0xFFFF & ~sum(SevPolicy)
    if unknown and rules.unknown_policy_bits == "allow":
        findings.leave_open("launch_policy.unknown_bits")
    else:
        findings.demand(
            "launch_policy.unknown_bits",
            holds=not unknown,
            demanded="none set",
            found=f"{unknown:#x}",
            detail=f"reserved bits {unknown:#x} are set in the launch policy",
        )
