"""Launch sessions of legacy SEV: the owner wraps fresh transport keys for a platform, and the platform unwraps them.

SEV API, section 2.2 (key derivation) and LAUNCH_START.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sealift.errors import EvidenceRejected, UnusableInput
from sealift.evidence.formats.launch_session import KEY_BYTES, Session, TransportKeys
from sealift.evidence.formats.sev_certificate import (
    ALGORITHM_ECDH,
    USAGE_PDH,
    SevCertificate,
    build_sev_certificate,
)

LABEL_MASTER = b"sev-master-secret"
LABEL_KEK = b"sev-kek"
LABEL_KIK = b"sev-kik"


@dataclass(frozen=True, slots=True)
class Launch:
    """The owner's data for one launch: a certificate with his Diffie-Hellman key, a session, the transport keys."""

    owner_certificate: SevCertificate
    session: Session
    policy: int
    keys: TransportKeys = field(repr=False)


def derive_key(key: bytes, label: bytes, context: bytes, size_bytes: int) -> bytes:
    """NIST SP 800-108 in counter mode over HMAC-SHA256, with little-endian counter and length in bits.

    `cryptography`'s KBKDFHMAC has a big-endian counter, and so gives other keys.
    """
    bits = struct.pack("<I", size_bytes * 8)
    blocks = (
        hmac.digest(key, struct.pack("<I", counter) + label + b"\0" + context + bits, "sha256")
        for counter in range(1, -(-size_bytes // 32) + 1)
    )
    return b"".join(blocks)[:size_bytes]


def derive_wrapping_keys(shared_secret: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    """KEK and KIK, 16 bytes each, from the big-endian x of the ECDH point and the session's nonce."""
    master = derive_key(shared_secret, LABEL_MASTER, nonce, KEY_BYTES)
    return derive_key(master, LABEL_KEK, b"", KEY_BYTES), derive_key(master, LABEL_KIK, b"", KEY_BYTES)


def aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    """AES-128 in counter mode: it encrypts and decrypts."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()


def policy_mac(tik: bytes, policy: int) -> bytes:
    """The MAC that binds the launch policy to the session: HMAC(TIK, LE32 policy)."""
    return hmac.digest(tik, struct.pack("<I", policy), "sha256")


def wrap_session(shared_secret: bytes, keys: TransportKeys, policy: int, nonce: bytes, iv: bytes) -> Session:
    """Wrap transport keys for the platform that knows the shared secret. Nonce and iv: 16 bytes each."""
    kek, kik = derive_wrapping_keys(shared_secret, nonce)
    wrapped = aes_ctr(kek, iv, keys.tek + keys.tik)
    mac = hmac.digest(kik, wrapped, "sha256")
    return Session(nonce, wrapped, iv, mac, policy_mac(keys.tik, policy))


def unwrap_session(shared_secret: bytes, session: Session, policy: int) -> TransportKeys:
    """Unwrap transport keys, as the platform does at LAUNCH_START. Raises EvidenceRejected for a wrong MAC."""
    kek, kik = derive_wrapping_keys(shared_secret, session.nonce)
    expected = hmac.digest(kik, session.wrapped_keys, "sha256")
    if not hmac.compare_digest(expected, session.wrap_mac):
        raise EvidenceRejected(
            "the session was wrapped for another platform",
            reasons=("session: wrap MAC",),
            remedy="Make the session for the platform's current chain: its Diffie-Hellman key may be new",
        )
    plain = aes_ctr(kek, session.wrap_iv, session.wrapped_keys)
    keys = TransportKeys(tek=plain[:KEY_BYTES], tik=plain[KEY_BYTES:])
    if not hmac.compare_digest(policy_mac(keys.tik, policy), session.policy_mac):
        raise EvidenceRejected(
            "the session was made for another launch policy",
            reasons=("session: policy MAC",),
            remedy="Launch with the policy that the owner made the session for",
        )
    return keys


def create_session(
    pdh: SevCertificate, policy: int, *, owner_key: ec.EllipticCurvePrivateKey | None = None
) -> Launch:
    """Generate transport keys, and wrap them for the platform whose verified chain ends in this PDH, as the owner does.

    Verify the chain first: this function trusts the given key.
    """
    if pdh.usage != USAGE_PDH:
        raise UnusableInput(
            f"a session is made for a PDH, and this is a {pdh.usage_name}",
            remedy="Give the platform's Diffie-Hellman certificate",
        )
    peer = pdh.public_key()
    key = owner_key or ec.generate_private_key(ec.SECP384R1())
    if peer.curve.name != key.curve.name:
        raise UnusableInput("the platform's PDH is not on P-384", remedy="Such a platform is not supported")
    keys = TransportKeys(tek=secrets.token_bytes(KEY_BYTES), tik=secrets.token_bytes(KEY_BYTES))
    shared = key.exchange(ec.ECDH(), peer)
    session = wrap_session(shared, keys, policy, secrets.token_bytes(16), secrets.token_bytes(16))
    certificate = build_sev_certificate(usage=USAGE_PDH, algorithm=ALGORITHM_ECDH, key=key.public_key())
    return Launch(certificate, session, policy, keys)


def open_session(
    pdh_key: ec.EllipticCurvePrivateKey, owner: SevCertificate, session: Session, policy: int
) -> TransportKeys:
    """Agree on a secret with the owner's key, check both MACs and unwrap, as the platform does."""
    peer = owner.public_key()
    if peer.curve.name != pdh_key.curve.name:
        raise UnusableInput("the owner's key is on another curve", remedy="Make it on P-384")
    return unwrap_session(pdh_key.exchange(ec.ECDH(), peer), session, policy)
