"""Whether a certificate of an SNP chain is revoked. Each CRL must be signed by the root, and be current."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.evidence.verify.signatures import crl_signed_by

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sealift.evidence.formats.crl import Crl
    from sealift.evidence.formats.x509_certificate import X509Certificate
    from sealift.evidence.verify.verdict import Findings
    from sealift.evidence.verify.x509_chain import X509Chain


def check_crls(
    findings: Findings, chain: X509Chain, crls: Sequence[Crl], at: datetime, *, required: bool
) -> None:
    """Check that each CRL is signed by the root and current, and that none of them lists a certificate of the chain.

    A refused CRL does not prove that a certificate is not revoked. A certificate that a genuine CRL lists stays
    revoked, however old that CRL is.
    """
    named = [(name, certificate) for name, certificate in chain.links()[:2] if certificate is not None]
    if len(named) < 2 or not any(not _crl_faults(crl, chain.root, at) for crl in crls):
        findings.leave_open("revocation")
    if not crls:
        if required:
            findings.demand(
                "crl",
                holds=False,
                demanded="a current CRL of the root",
                found="none",
                detail="the policy demands a CRL, and the evidence has none",
            )
        return
    for crl in crls:
        faults = _crl_faults(crl, chain.root, at)
        findings.proof(
            "crl",
            holds=not faults,
            demanded=f"a CRL of the root, current at {at:%Y-%m-%dT%H:%M:%SZ}",
            found=f"{crl.issuer_name}, number {crl.number}",
            detail=f"the CRL of {crl.issuer_name!r} {'; it '.join(faults)}",
        )
        for name, certificate in named:
            revoked = certificate.serial in crl.revoked
            if faults and not (revoked and chain.root is not None and crl_signed_by(crl, chain.root)):
                continue
            findings.proof(
                "revocation",
                holds=not revoked,
                demanded="not revoked",
                found=f"{name} serial {certificate.serial}",
                detail=f"{certificate.subject_name!r} (serial {certificate.serial}) is revoked",
            )


def _crl_faults(crl: Crl, root: X509Certificate | None, at: datetime) -> list[str]:
    faults = []
    if root is None or not crl_signed_by(crl, root):
        faults.append("is not signed by the chain's root")
    if at < crl.this_update:
        faults.append("is from the future")
    if crl.next_update is None or at > crl.next_update:
        faults.append("is past its next update")
    if crl.unknown_critical:
        faults.append("has a critical extension that is not understood")
    return faults
