"""Whether a nonce or a transport key is fresh. The caller keeps the used ones and passes them in."""

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
    """A nonce that the owner generated, and its time."""

    value: bytes
    issued_at: datetime

    @property
    def fingerprint(self) -> str:
        """The entry of this nonce in a ledger of used nonces."""
        return hashlib.sha256(b"sealift used nonce\0" + self.value).hexdigest()


def nonce_reasons(
    nonce: Nonce, *, at: datetime, lifetime: timedelta, used: Collection[str]
) -> tuple[Reason, ...]:
    """Why this nonce is not fresh: used (its fingerprint is in `used`), expired, or from the future."""
    reasons = []
    if nonce.fingerprint in used:
        reasons.append(Reason("nonce", "the nonce was used before: this evidence may be a replay"))
    if at - nonce.issued_at > lifetime:
        reasons.append(Reason("nonce", f"the nonce is older than {lifetime.total_seconds():.0f} s"))
    if nonce.issued_at > at:
        reasons.append(Reason("nonce", "the nonce was issued after the time of the check"))
    return tuple(reasons)


def transport_key_reasons(keys: TransportKeys, *, used: Collection[str]) -> tuple[Reason, ...]:
    """Why these keys must not be used for another launch: TEK or TIK was used before."""
    names = ("TEK", "TIK")
    return tuple(
        Reason(
            "transport_keys", f"this {name} was used before: an old measurement or secret could be replayed"
        )
        for name, fingerprint in zip(names, key_fingerprints(keys), strict=True)
        if fingerprint in used
    )


def key_fingerprints(keys: TransportKeys) -> tuple[str, str]:
    """The entries of TEK and TIK in a ledger of used keys: one-way hashes, different for the two."""
    return (
        hashlib.sha256(b"sealift used TEK\0" + keys.tek).hexdigest(),
        hashlib.sha256(b"sealift used TIK\0" + keys.tik).hexdigest(),
    )
