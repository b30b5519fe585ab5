"""The verdict on a legacy SEV platform: whether its six certificates chain to a trusted root.

It says which platform can open a session. It does not say that memory has integrity, so every verdict has the label
"no integrity protection".
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sealift.evidence.formats.amd_certificate import AmdCertificate
from sealift.evidence.formats.sev_certificate import (
    ALGORITHM_ECDH,
    ALGORITHM_ECDSA,
    SHA384_FLAG,
    SevCertificate,
)
from sealift.evidence.verify.policy import version_numbers
from sealift.evidence.verify.roots import LEGACY_ROOTS, Root, find_root
from sealift.evidence.verify.signatures import amd_certificate_signed_by, sev_certificate_signed_by
from sealift.evidence.verify.verdict import NO_INTEGRITY, Findings, Verdict

if TYPE_CHECKING:
    from sealift.evidence.formats.platform_chain import PlatformChain
    from sealift.evidence.verify.policy import Policy, SevRules

# Subject, signer: both the chip's and the owner's key sign the PEK.
_EDGES = (
    ("ark", "ark"),
    ("ask", "ark"),
    ("cek", "ask"),
    ("oca", "oca"),
    ("pek", "oca"),
    ("pek", "cek"),
    ("pdh", "pek"),
)
_ALGORITHMS = {
    "oca": ALGORITHM_ECDSA,
    "pek": ALGORITHM_ECDSA,
    "cek": ALGORITHM_ECDSA,
    "pdh": ALGORITHM_ECDH,
}


def verify_platform(chain: PlatformChain, policy: Policy) -> Verdict:
    """Check every edge, the root's pin and the policy's demands. These certificates have no dates."""
    findings = Findings()
    for stray in chain.strays:
        findings.proof(
            "stray",
            holds=False,
            demanded="ARK, ASK, CEK, OCA, PEK and PDH only",
            found=stray,
            detail=f"a certificate of {stray} does not belong to a platform's chain",
        )
    root = _check_root(findings, chain, policy)
    for subject, signer in _EDGES:
        _check_edge(findings, chain, subject, signer)
    for role, algorithm in _ALGORITHMS.items():
        _check_header(findings, role, getattr(chain, role), algorithm)
    _check_policy(findings, chain, policy.sev, root)
    return findings.verdict(
        "sev-platform",
        labels=(NO_INTEGRITY,),
        generation=root.generation if root else None,
        root_sha256=chain.ark.sha256 if chain.ark else None,
        extra_root=root.extra if root else False,
        emulated=root.emulated if root else False,
    )


def _check_root(findings: Findings, chain: PlatformChain, policy: Policy) -> Root | None:
    if chain.ark is None:
        findings.proof(
            "root",
            holds=False,
            demanded="a pinned root, or one that the policy names",
            found="none",
            detail="the ARK is not in the evidence",
        )
        return None
    root = find_root(chain.ark.sha256, LEGACY_ROOTS, policy.extra_roots)
    findings.proof(
        "root",
        holds=root is not None,
        demanded="a pinned root, or one that the policy names",
        found=chain.ark.sha256,
        detail="the ARK is neither AMD's nor named by the policy (its key id proves nothing)",
    )
    return root


def _check_edge(findings: Findings, chain: PlatformChain, subject_role: str, signer_role: str) -> None:
    subject = getattr(chain, subject_role)
    signer = getattr(chain, signer_role)
    missing = [
        role.upper() for role in dict.fromkeys((subject_role, signer_role)) if not getattr(chain, role)
    ]
    holds = not missing and _signed_by(subject, signer)
    by = "itself" if subject_role == signer_role else f"the {signer_role.upper()}"
    findings.proof(
        f"{subject_role}_by_{signer_role}",
        holds=holds,
        demanded=f"{subject_role.upper()} signed by {by}",
        found="missing" if missing else "signed" if holds else "not signed by it",
        detail=f"the {' and '.join(missing)} is not in the evidence"
        if missing
        else f"{by} did not sign the {subject_role.upper()}",
    )


def _signed_by(subject: AmdCertificate | SevCertificate, signer: AmdCertificate | SevCertificate) -> bool:
    if isinstance(subject, SevCertificate):
        return sev_certificate_signed_by(subject, signer)
    return isinstance(signer, AmdCertificate) and amd_certificate_signed_by(subject, signer)


def _check_header(findings: Findings, role: str, certificate: SevCertificate | None, algorithm: int) -> None:
    if certificate is None:
        return
    kind = certificate.algorithm & ~SHA384_FLAG
    findings.proof(
        f"{role}_header",
        holds=certificate.version == 1 and kind == algorithm,
        demanded=f"version 1, algorithm {algorithm:#x}",
        found=f"version {certificate.version}, algorithm {certificate.algorithm:#x}",
        detail=f"the {role.upper()}'s version or algorithm is not one that AMD's firmware uses",
    )


def _check_policy(findings: Findings, chain: PlatformChain, rules: SevRules, root: Root | None) -> None:
    generation = root.generation if root else None
    if root is not None and generation is None:
        findings.leave_open("generation")
    elif generation is not None:
        findings.demand(
            "generation",
            holds=generation in rules.generations and generation not in rules.deny_generations,
            demanded=", ".join(each for each in rules.generations if each not in rules.deny_generations),
            found=generation,
            detail=f"the policy does not accept the generation {generation}",
        )
    wanted = version_numbers(rules.min_api)
    for role in ("pek", "pdh"):
        certificate = getattr(chain, role)
        if certificate is not None:
            findings.demand(
                f"{role}_api",
                holds=certificate.api >= wanted,
                demanded=f"API {rules.min_api} or later",
                found=f"{certificate.api_major}.{certificate.api_minor}",
                detail=f"the firmware that made the {role.upper()} has API {certificate.api_major}."
                f"{certificate.api_minor}, below {rules.min_api}",
            )
    for role, fingerprints in (("oca", rules.oca_sha256), ("cek", rules.cek_sha256)):
        certificate = getattr(chain, role)
        if not fingerprints:
            findings.leave_open(f"{role}_sha256")
        elif certificate is not None:
            found = hashlib.sha256(certificate.raw).hexdigest()
            findings.demand(
                f"{role}_sha256",
                holds=found in fingerprints,
                demanded=" or ".join(fingerprints),
                found=found,
                detail=f"the {role.upper()} is not one that the policy names",
            )
