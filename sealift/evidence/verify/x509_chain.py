"""The chain above an endorsement key: ARK, then ASK for a VCEK or ASVK for a VLEK (VCEK/KDS, chapter 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.evidence.formats.endorsement import Kind
from sealift.evidence.formats.x509_certificate import OID_BASIC_CONSTRAINTS, OID_KEY_USAGE
from sealift.evidence.verify.roots import X509_ROOTS, Root, find_root
from sealift.evidence.verify.signatures import x509_signed_by

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sealift.evidence.formats.endorsement import Endorsement
    from sealift.evidence.formats.x509_certificate import X509Certificate
    from sealift.evidence.verify.policy import ExtraRoot
    from sealift.evidence.verify.verdict import Findings

_UNDERSTOOD = {OID_BASIC_CONSTRAINTS, OID_KEY_USAGE}


@dataclass(frozen=True, slots=True)
class X509Chain:
    """The certificates of an endorsement key, its issuer and the root; None if one is missing or unreadable."""

    key: X509Certificate | None
    intermediate: X509Certificate | None
    root: X509Certificate | None

    def links(self) -> list[tuple[str, X509Certificate | None]]:
        """From the root down, with their names in checks."""
        return [("ark", self.root), ("ask", self.intermediate), ("vek", self.key)]


def assemble_chain(key: X509Certificate | None, others: Sequence[X509Certificate]) -> X509Chain:
    """Find each issuer by name. If several have this name, take the one whose key made the signature."""
    if key is not None:
        intermediate = _issuer(key, others)
    else:
        intermediate = next((each for each in others if each.subject != each.issuer), None)
    root = None if intermediate is None else _issuer(intermediate, others)
    if root is None:
        # Without the intermediate, the verdict still reports on the root.
        root = next((each for each in others if each.subject == each.issuer), None)
    return X509Chain(key, intermediate, root)


def check_chain(
    findings: Findings, chain: X509Chain, extra_roots: tuple[ExtraRoot, ...], at: datetime
) -> Root | None:
    """Check pin, signatures, constraints and dates of a chain. Returns the root if it is trusted."""
    root = None
    if chain.root is not None:
        root = find_root(chain.root.sha256, X509_ROOTS, extra_roots)
        findings.proof(
            "root",
            holds=root is not None,
            demanded="a pinned root, or one that the policy names",
            found=chain.root.sha256,
            detail=f"the root {chain.root.subject_name!r} is neither AMD's nor named by the policy",
        )
    issuers = [chain.root, chain.root, chain.intermediate]
    for (name, subject), signer in zip(chain.links(), issuers, strict=True):
        _check_signature(findings, name, subject, signer)
        if subject is not None:
            _check_validity(findings, name, subject, at)
    for name, certificate in chain.links()[:2]:
        if certificate is not None:
            findings.proof(
                f"{name}_constraints",
                holds=certificate.may_sign_certificates,
                demanded="a certificate authority",
                found=certificate.subject_name,
                detail=f"{certificate.subject_name!r} may not sign certificates",
            )
    return root


def check_intermediate(findings: Findings, chain: X509Chain, endorsement: Endorsement) -> None:
    """Check the issuers' names: a VCEK comes from SEV-<product>, a VLEK from SEV-VLEK-<product>."""
    infix = "VLEK-" if endorsement.kind is Kind.VLEK else ""
    product = endorsement.generation.value.capitalize()
    for name, certificate, wanted in (
        ("ask_name", chain.intermediate, f"SEV-{infix}{product}"),
        ("ark_name", chain.root, f"ARK-{product}"),
    ):
        if certificate is not None:
            findings.proof(
                name,
                holds=certificate.subject_name == wanted,
                demanded=wanted,
                found=certificate.subject_name,
                detail=f"a {endorsement.kind} of {product} chains through {wanted}, "
                f"not {certificate.subject_name!r}",
            )


def _issuer(subject: X509Certificate, others: Sequence[X509Certificate]) -> X509Certificate | None:
    named = [each for each in others if each.subject == subject.issuer]
    if len(named) > 1:
        return next((each for each in named if x509_signed_by(subject, each)), named[0])
    return named[0] if named else None


def _check_signature(
    findings: Findings, name: str, subject: X509Certificate | None, signer: X509Certificate | None
) -> None:
    check = f"{name}_signature"
    if subject is None or signer is None:
        missing = "its own certificate" if subject is None else f"{subject.issuer_name!r}, its issuer,"
        findings.proof(
            check,
            holds=False,
            demanded="signed by its issuer",
            found="no certificate",
            detail=f"the {name.upper()}'s signature cannot be checked: {missing} is missing in the evidence or damaged",
        )
        return
    findings.proof(
        check,
        holds=x509_signed_by(subject, signer),
        demanded=f"signed by {signer.subject_name}",
        found=subject.subject_name,
        detail=f"the key of {signer.subject_name!r} did not sign {subject.subject_name!r}",
    )
    unknown = [each.oid for each in subject.extensions if each.critical and each.oid not in _UNDERSTOOD]
    if unknown:
        findings.proof(
            f"{name}_extensions",
            holds=False,
            demanded="no critical extension that is not understood",
            found=", ".join(unknown),
            detail=f"{subject.subject_name!r} has critical extensions that are not understood",
        )


def _check_validity(findings: Findings, name: str, certificate: X509Certificate, at: datetime) -> None:
    span = f"{certificate.not_before:%Y-%m-%dT%H:%M:%SZ} to {certificate.not_after:%Y-%m-%dT%H:%M:%SZ}"
    early = at < certificate.not_before
    findings.proof(
        f"{name}_validity",
        holds=certificate.not_before <= at <= certificate.not_after,
        demanded=f"valid at {at:%Y-%m-%dT%H:%M:%SZ}",
        found=span,
        detail=f"{certificate.subject_name!r} is {'not yet valid' if early else 'expired'} ({span})",
    )
