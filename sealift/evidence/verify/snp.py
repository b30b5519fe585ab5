"""The verdict on an SEV-SNP report: whether it is genuine, and whether the policy accepts it."""

from __future__ import annotations

import hmac
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from sealift.errors import UnusableInput
from sealift.evidence.formats.endorsement import TURIN_CHIP_ID_BYTES, Endorsement, Kind, read_endorsement
from sealift.evidence.formats.snp_report import ALGORITHM_ECDSA_P384_SHA384, Signer
from sealift.evidence.formats.tcb import decode_tcb, generation_of_cpu
from sealift.evidence.verify.revocation import check_crls
from sealift.evidence.verify.signatures import report_signed_by
from sealift.evidence.verify.snp_appraisal import appraise_snp
from sealift.evidence.verify.verdict import Findings, Verdict
from sealift.evidence.verify.x509_chain import assemble_chain, check_chain, check_intermediate

if TYPE_CHECKING:
    from datetime import datetime

    from sealift.evidence.formats.crl import Crl
    from sealift.evidence.formats.snp_report import SignedReport, SnpReport
    from sealift.evidence.formats.x509_certificate import X509Certificate
    from sealift.evidence.verify.policy import Policy, SnpPolicy
    from sealift.evidence.verify.roots import Root


@dataclass(frozen=True, slots=True)
class SnpEvidence:
    """A report with its endorsement key, the certificates above it in any order, and CRLs.

    `key` is None if its certificate cannot be read; `key_fault` then says why.
    """

    report: SignedReport
    key: X509Certificate | None
    chain: tuple[X509Certificate, ...] = ()
    crls: tuple[Crl, ...] = ()
    key_fault: str = ""


def verify_snp(
    evidence: SnpEvidence, policy: Policy, *, at: datetime, report_data: bytes | None = None
) -> Verdict:
    """Make all checks, and give all reasons. `report_data`: the 64 bytes that this guest's report must contain."""
    findings = Findings()
    rules, report = policy.snp, evidence.report.fields
    chain = assemble_chain(evidence.key, evidence.chain)
    root = check_chain(findings, chain, policy.extra_roots, at)
    check_crls(findings, chain, evidence.crls, at, required=rules.require_crl)
    _check_report_signature(findings, evidence)
    endorsement = _read_endorsement(findings, evidence)
    if endorsement is not None:
        check_intermediate(findings, chain, endorsement)
        _check_generation(findings, report, endorsement, root, rules)
        _check_kind(findings, report, endorsement)
        _check_chip(findings, report, endorsement, rules)
        _check_endorsed_tcb(findings, report, endorsement, rules)
    appraise_snp(findings, evidence.report, endorsement, policy, report_data=report_data)
    return findings.verdict(
        "sev-snp",
        generation=endorsement.generation.value if endorsement else None,
        root_sha256=chain.root.sha256 if chain.root else None,
        extra_root=root.extra if root else False,
        emulated=root.emulated if root else False,
    )


def _read_endorsement(findings: Findings, evidence: SnpEvidence) -> Endorsement | None:
    key = evidence.key
    if key is None:
        findings.proof(
            "vek_certificate",
            holds=False,
            demanded="a certificate that can be read",
            found="none",
            detail=f"the certificate of the key that signed the report cannot be read: {evidence.key_fault}",
        )
        return None
    try:
        return read_endorsement(key)
    except UnusableInput as error:
        findings.proof(
            "endorsement",
            holds=False,
            demanded="a VCEK or VLEK of a known generation",
            found=key.subject_name,
            detail=error.message,
        )
        return None


def _check_report_signature(findings: Findings, evidence: SnpEvidence) -> None:
    report = evidence.report.fields
    findings.proof(
        "signature_algorithm",
        holds=report.signature_algorithm == ALGORITHM_ECDSA_P384_SHA384,
        demanded="ECDSA P-384 with SHA-384 (1)",
        found=str(report.signature_algorithm),
        detail=f"signature algorithm {report.signature_algorithm} is not known",
    )
    name, holds = "endorsement key", False
    if evidence.key is not None:
        name = evidence.key.subject_name
        with suppress(UnusableInput):
            key = evidence.key.public_key()
            holds = isinstance(key, ec.EllipticCurvePublicKey) and report_signed_by(evidence.report, key)
    findings.proof(
        "report_signature",
        holds=holds,
        demanded=f"signed by the given {name}",
        found="signed" if holds else "not signed by it",
        detail="the endorsement key did not sign this report: one of them was altered, or belongs to another machine",
    )


def _check_generation(
    findings: Findings, report: SnpReport, endorsement: Endorsement, root: Root | None, rules: SnpPolicy
) -> None:
    generation = endorsement.generation
    if root is not None and root.generation is None:
        findings.leave_open("root_generation")
    elif root is not None:
        findings.proof(
            "root_generation",
            holds=root.generation == generation.value,
            demanded=str(root.generation),
            found=generation.value,
            detail=f"a {generation.value} key under the root of {root.generation}",
        )
    if report.cpuid is None:
        findings.leave_open("report_generation")
    else:
        of_cpu = generation_of_cpu(report.cpuid[0], report.cpuid[1])
        findings.demand(
            "report_generation",
            holds=of_cpu is generation,
            demanded=generation.value,
            found=of_cpu.value if of_cpu else "unknown",
            detail=f"the report's processor is {of_cpu.value if of_cpu else 'of an unknown generation'}, "
            f"the key's is {generation.value}",
        )
    findings.demand(
        "generation",
        holds=generation in rules.generations and generation not in rules.deny_generations,
        demanded=", ".join(each for each in rules.generations if each not in rules.deny_generations),
        found=generation.value,
        detail=f"the policy does not accept the generation {generation.value}",
    )


def _check_kind(findings: Findings, report: SnpReport, endorsement: Endorsement) -> None:
    signer = report.signer.name if report.signer is not None else str(report.signer_number)
    wanted = {Kind.VCEK: Signer.VCEK, Kind.VLEK: Signer.VLEK}[endorsement.kind]
    findings.demand(
        "vek_kind",
        holds=report.signer is wanted,
        demanded=signer,
        found=endorsement.kind.value,
        detail=f"the report says {signer}, and the certificate is a {endorsement.kind}",
    )


def _check_chip(findings: Findings, report: SnpReport, endorsement: Endorsement, rules: SnpPolicy) -> None:
    masked = report.chip_masked and rules.allow_masked_chip
    if rules.allow_chip_mismatch or masked or endorsement.chip_id is None:
        findings.leave_open("chip_id")
        return
    wanted = endorsement.chip_id
    if len(wanted) == TURIN_CHIP_ID_BYTES:
        wanted = wanted.ljust(len(report.chip_id), b"\0")
    findings.demand(
        "chip_id",
        holds=hmac.compare_digest(wanted, report.chip_id),
        demanded=wanted.hex(),
        found=report.chip_id.hex(),
        detail="the certificate endorses another chip than that of the report",
    )


def _check_endorsed_tcb(
    findings: Findings, report: SnpReport, endorsement: Endorsement, rules: SnpPolicy
) -> None:
    if rules.allow_tcb_mismatch:
        findings.leave_open("endorsed_tcb")
        return
    reported = decode_tcb(report.reported_tcb, endorsement.generation)
    findings.demand(
        "endorsed_tcb",
        holds=reported == endorsement.tcb,
        demanded=str(endorsement.tcb),
        found=str(reported),
        detail=f"the certificate endorses {endorsement.tcb}, and the report says {reported}",
    )
