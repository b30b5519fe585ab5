"""The lab's root, which replaces AMD's: ARK, ASK and ASVK for SNP (X.509), ARK and ASK for legacy SEV.

It is made once and kept in a directory of mode 0700, since RSA-4096 keys take seconds. Subjects have AMD's common
names, because the rules of the chain demand them. Their organisation says EMULATED, and so do legacy key ids.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from sealift.evidence.formats.amd_certificate import USAGE_ARK, USAGE_ASK, issue_amd_certificate
from sealift.evidence.formats.crl import issue_crl
from sealift.evidence.formats.endorsement import Kind
from sealift.evidence.formats.x509_certificate import ca_extensions, issue_x509

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from sealift.evidence.formats.tcb import Generation
    from sealift.evidence.formats.x509_certificate import Extension
    from sealift.processor.emulated.store import Store

ORGANISATION = "SEALIFT EMULATED"
ARK_KEY_ID = b"SEALIFT EMULATED"
ASK_KEY_ID = b"SEALIFT EMUL ASK"
KEY_BITS = 4096

_CA_VALID = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2051, 1, 1, tzinfo=UTC))
_VEK_LIFETIME = timedelta(days=7 * 365)
_CRL_LIFETIME = timedelta(days=365)
_INFIX = {Kind.VCEK: "", Kind.VLEK: "VLEK-"}


@dataclass(frozen=True)
class Authority:
    """Keys and certificates in a directory. Missing ones are made."""

    store: Store

    def x509_root(self, generation: Generation) -> bytes:
        """ARK-<product>, DER."""
        name = f"ARK-{generation.value.capitalize()}"
        return self.store.keep(f"{name}.der", lambda: self._issue_authority(name, name, self._ark, None))

    def x509_intermediate(self, generation: Generation, kind: Kind) -> bytes:
        """SEV-<product> for a VCEK, SEV-VLEK-<product> for a VLEK, DER."""
        product = generation.value.capitalize()
        name = f"SEV-{_INFIX[kind]}{product}"
        return self.store.keep(
            f"{name}.der", lambda: self._issue_authority(name, f"ARK-{product}", self._ask, 0)
        )

    def endorse(
        self,
        generation: Generation,
        kind: Kind,
        key: ec.EllipticCurvePublicKey,
        extensions: tuple[Extension, ...],
    ) -> bytes:
        """A VCEK's or VLEK's certificate, DER: serial number 0, as AMD's."""
        now = datetime.now(UTC).replace(microsecond=0)
        return issue_x509(
            subject=f"SEV-{kind.value}",
            issuer=f"SEV-{_INFIX[kind]}{generation.value.capitalize()}",
            key=key,
            signer=self._ask,
            serial=0,
            valid=(now - timedelta(days=1), now + _VEK_LIFETIME),
            extensions=extensions,
            organisation=ORGANISATION,
        ).der

    def crl(self, generation: Generation, revoked: tuple[int, ...] = ()) -> bytes:
        """A current CRL, DER."""
        now = datetime.now(UTC).replace(microsecond=0)
        return issue_crl(
            issuer=f"ARK-{generation.value.capitalize()}",
            signer=self._ark,
            this_update=now - timedelta(hours=1),
            next_update=now + _CRL_LIFETIME,
            revoked=revoked,
            organisation=ORGANISATION,
        ).der

    @property
    def legacy_root(self) -> bytes:
        """The ARK in the format before X.509, 1600 bytes."""
        return self.store.keep(
            "legacy-ark.cert",
            lambda: (
                issue_amd_certificate(
                    subject=self._ark.public_key(),
                    signer=self._ark,
                    usage=USAGE_ARK,
                    key_id=ARK_KEY_ID,
                    certifying_id=ARK_KEY_ID,
                ).raw
            ),
        )

    @property
    def legacy_ask(self) -> bytes:
        """The ASK in the format before X.509, 1600 bytes."""
        return self.store.keep(
            "legacy-ask.cert",
            lambda: (
                issue_amd_certificate(
                    subject=self._ask.public_key(),
                    signer=self._ark,
                    usage=USAGE_ASK,
                    key_id=ASK_KEY_ID,
                    certifying_id=ARK_KEY_ID,
                ).raw
            ),
        )

    @property
    def ask(self) -> rsa.RSAPrivateKey:
        """The key that signs a legacy chip's CEK."""
        return self._ask

    @cached_property
    def _ark(self) -> rsa.RSAPrivateKey:
        return self._key("ark.key")

    @cached_property
    def _ask(self) -> rsa.RSAPrivateKey:
        return self._key("ask.key")

    def _key(self, name: str) -> rsa.RSAPrivateKey:
        def make() -> bytes:
            key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

        # The file is our own: checking its primes again would take longer than everything else.
        encoded = self.store.keep(name, make)
        key = load_der_private_key(encoded, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(name)
        return key

    def _issue_authority(
        self, subject: str, issuer: str, key: rsa.RSAPrivateKey, path_length: int | None
    ) -> bytes:
        serial = int.from_bytes(os.urandom(8), "big") >> 1
        return issue_x509(
            subject=subject,
            issuer=issuer,
            key=key.public_key(),
            signer=self._ark,
            serial=serial,
            valid=_CA_VALID,
            extensions=ca_extensions(path_length),
            organisation=ORGANISATION,
        ).der
