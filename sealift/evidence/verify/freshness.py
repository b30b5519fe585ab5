"""Whether a nonce or a transport key is fresh. What was used before is passed in: the caller keeps it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.evidence.verify.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, timedelta

    from sealift.evidence.formats.launch_session import TransportKeys


@dataclass(frozen=True, slots=True)
class Nonce:
    """A nonce that the owner drew, and when."""

    value: bytes
    issued_at: datetime

    @property
    def fingerprint(self) -> str:
        """What a ledger of used nonces keeps."""
        return hashlib.sha256(b"sealift used nonce\0" + self.value).hexdigest()


def nonce_reasons(
    nonce: Nonce, *, at: datetime, lifetime: timedelta, used: Collection[str]
) -> tuple[Reason, ...]:
    """Why this nonce proves nothing new: used (fingerprint in `used`), expired, or from the future."""
    reasons = []
    if nonce.fingerprint in used:
        reasons.append(Reason("nonce", "the nonce was used before: this evidence may be a replay"))
    if at - nonce.issued_at > lifetime:
        reasons.append(Reason("nonce", f"the nonce is older than {lifetime.total_seconds():.0f} s"))
    if nonce.issued_at > at:
        reasons.append(Reason("nonce", "the nonce was issued after the time of the check"))
    return tuple(reasons)


def transport_key_reasons(keys: TransportKeys, *, used: Collection[str]) -> tuple[Reason, ...]:
    """Why these keys must not carry another launch: TEK or TIK was used before."""
    names = ("TEK", "TIK")
    return tuple(
        Reason(
            "transport_keys", f"this {name} was used before: an old measurement or secret could be replayed"
        )
        for name, fingerprint in zip(names, key_fingerprints(keys), strict=True)
        if fingerprint in used
    )


def key_fingerprints(keys: TransportKeys) -> tuple[str, str]:
    """What a ledger of used keys keeps in place of TEK and TIK: one-way, and apart for the two."""
    return (
        hashlib.sha256(b"sealift used TEK\0" + keys.tek).hexdigest(),
        hashlib.sha256(b"sealift used TIK\0" + keys.tik).hexdigest(),
    )
