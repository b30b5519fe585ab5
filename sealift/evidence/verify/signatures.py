"""Whether a key signed received bytes: one function for each signed format.

Signatures are checked over the bytes as received, which are never encoded again. A key that cannot be used gives False.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sealift.errors import UnusableInput
from sealift.evidence.formats.id_block import ALGORITHM_ECDSA_P384_SHA384, IdAuth
from sealift.evidence.formats.sev_attestation_report import SIGNED_BYTES, AttestationReport
from sealift.evidence.formats.sev_certificate import (
    ALGORITHM_ECDSA,
    ALGORITHM_RSA,
    SHA384_FLAG,
    USAGE_PEK,
    SevCertificate,
    Slot,
)
from sealift.evidence.formats.signature import HASHES, decode_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.evidence.formats.amd_certificate import AmdCertificate
    from sealift.evidence.formats.crl import Crl
    from sealift.evidence.formats.snp_report import SignedReport
    from sealift.evidence.formats.x509_certificate import X509Certificate


def verify_ecdsa(key: ec.EllipticCurvePublicKey, rs: bytes, message: bytes, hash_name: str) -> bool:
    """Whether little-endian r ‖ s (144 bytes, more is ignored) signs the message."""
    r = int.from_bytes(rs[:72], "little")
    s = int.from_bytes(rs[72:144], "little")
    if not r or not s:
        return False
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(HASHES[hash_name]()))
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_pss(key: rsa.RSAPublicKey, signature: bytes, message: bytes, hash_name: str) -> bool:
    """Whether a big-endian RSA-PSS signature with a salt as long as the hash signs the message."""
    algorithm = HASHES[hash_name]()
    scheme = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
    try:
        key.verify(signature, message, scheme, algorithm)
    except (InvalidSignature, ValueError):
        return False
    return True


def amd_certificate_signed_by(subject: AmdCertificate, signer: AmdCertificate) -> bool:
    """Whether the signer's key signed the received bytes, and the ids agree."""
    if not (subject.consistent and signer.consistent) or subject.certifying_id != signer.key_id:
        return False
    if len(subject.raw) != len(signer.raw):
        return False
    try:
        key = signer.public_key()
    except UnusableInput:
        return False
    return verify_pss(key, subject.signature, subject.signed, signer.hash_name)


def slots_by(subject: SevCertificate, signer_usage: int) -> Sequence[Slot]:
    """The slots that name a signer of this usage."""
    return [slot for slot in subject.slots if slot.usage == signer_usage]


def sev_certificate_signed_by(subject: SevCertificate, signer: SevCertificate | AmdCertificate) -> bool:
    """Whether the signer's key made the signature in a slot that names its usage.

    A slot's usage is outside the signed part. It only says which key to try, and proves nothing.
    """
    try:
        key = signer.public_key()
    except UnusableInput:
        return False
    for slot in slots_by(subject, signer.usage):
        kind = slot.algorithm & ~SHA384_FLAG
        if isinstance(key, ec.EllipticCurvePublicKey):
            if kind == ALGORITHM_ECDSA and verify_ecdsa(key, slot.signature, subject.signed, slot.hash_name):
                return True
        elif kind == ALGORITHM_RSA:
            big_endian = slot.signature[: key.key_size // 8][::-1]
            if verify_pss(key, big_endian, subject.signed, slot.hash_name):
                return True
    return False


def attestation_report_signed_by(report: AttestationReport, pek: SevCertificate) -> bool:
    """Whether the PEK of a verified chain signed the received bytes."""
    # The algorithm field is outside the signed part: only the algorithm that the firmware uses is accepted.
    if pek.usage != USAGE_PEK or report.signature_usage != USAGE_PEK:
        return False
    if report.signature_algorithm != ALGORITHM_ECDSA:
        return False
    try:
        key = pek.public_key()
    except UnusableInput:
        return False
    return verify_ecdsa(key, report.raw[64:], report.raw[:SIGNED_BYTES], "sha256")


def x509_signed_by(subject: X509Certificate, signer: X509Certificate) -> bool:
    """Whether the signer's RSA key signs a certificate, and the issuer is the signer's subject."""
    return subject.issuer == signer.subject and _signs_as_amd(signer, subject)


def crl_signed_by(crl: Crl, signer: X509Certificate) -> bool:
    """Whether the signer's RSA key signs a CRL, and the issuer is the signer's subject."""
    return crl.issuer == signer.subject and _signs_as_amd(signer, crl)


def report_signed_by(report: SignedReport, key: ec.EllipticCurvePublicKey) -> bool:
    """Whether the key signs an SNP report."""
    return verify_ecdsa(key, report.signature, report.signed, "sha384")


def id_block_signed(auth: IdAuth, block: bytes) -> bool:
    """Whether the id key signs an id block (96 bytes, as received)."""
    return auth.id_algorithm == ALGORITHM_ECDSA_P384_SHA384 and _id_signature(
        auth.id_key, auth.block_signature, block
    )


def id_key_signed(auth: IdAuth) -> bool:
    """Whether the author key signs the 1028 bytes of the id key."""
    return auth.author_algorithm == ALGORITHM_ECDSA_P384_SHA384 and _id_signature(
        auth.author_key, auth.id_key_signature, auth.id_key
    )


def _signs_as_amd(signer: X509Certificate, subject: X509Certificate | Crl) -> bool:
    """By AMD's scheme, which is RSA-PSS with SHA-384."""
    try:
        key = signer.public_key()
    except UnusableInput:
        return False
    if not subject.pss_sha384 or not isinstance(key, rsa.RSAPublicKey):
        return False
    return verify_pss(key, subject.signature, subject.signed, "sha384")


def _id_signature(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        return verify_ecdsa(decode_key(key), signature, message, "sha384")
    except UnusableInput:
        return False
