"""One machine's emulated chip: a secret in a directory, the keys that are derived from it, and their certificates.

Keys are derived from the secret, so a chip has the same keys after a restart. A VCEK is derived from the reported TCB,
too, as on a real chip, where older firmware cannot derive the key of newer firmware.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from sealift.evidence.formats import certificate_table
from sealift.evidence.formats.amd_certificate import USAGE_ASK
from sealift.evidence.formats.endorsement import Endorsement, Kind, endorsement_extensions
from sealift.evidence.formats.sev_certificate import (
    ALGORITHM_ECDH,
    ALGORITHM_ECDSA,
    USAGE_CEK,
    USAGE_OCA,
    USAGE_PDH,
    USAGE_PEK,
    SevCertificate,
    add_signature,
    build_sev_certificate,
    parse_sev_certificate,
)
from sealift.evidence.formats.snp_report import Signer
from sealift.evidence.formats.tcb import Generation, encode_tcb
from sealift.evidence.launch.session import derive_key
from sealift.processor.emulated.authority import Authority
from sealift.processor.emulated.profile import PRODUCTS
from sealift.processor.emulated.store import Store
from sealift.processor.interface import SevPlatform, SnpPlatform

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.processor.emulated.profile import Profile

SECRET_BYTES = 32
TURIN_CHIP_ID_BYTES = 8

# The order of P-384's group: a private key is a smaller number.
_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)


@dataclass(frozen=True)
class Chip:
    """A chip whose secret and certificates are in `store`, endorsed by `authority`."""

    store: Store
    authority: Authority

    @classmethod
    def open(cls, directory: Path, authority: Path | None = None) -> Chip:
        """The chip of a state directory, which is made if it does not exist. Its root is beside it, unless named."""
        return cls(Store(directory / "chip"), Authority(Store(authority or directory / "authority")))

    @cached_property
    def secret(self) -> bytes:
        """The secret that identifies this chip."""
        return self.store.keep("secret", lambda: os.urandom(SECRET_BYTES))

    def chip_id(self, generation: Generation) -> bytes:
        """64 bytes; on Turin 8 bytes and zeros."""
        full = hashlib.sha512(b"emulated chip id\0" + self.secret).digest()
        return full[:TURIN_CHIP_ID_BYTES].ljust(64, b"\0") if generation is Generation.TURIN else full

    def key(self, label: str, context: bytes = b"") -> ec.EllipticCurvePrivateKey:
        """A P-384 key that is derived from the secret."""
        number = int.from_bytes(derive_key(self.secret, label.encode(), context, 64), "big")
        return ec.derive_private_key(number % (_ORDER - 1) + 1, ec.SECP384R1())

    @property
    def pek(self) -> ec.EllipticCurvePrivateKey:
        """The key that signs legacy attestation reports."""
        return self.key("emulated PEK")

    @property
    def pdh(self) -> ec.EllipticCurvePrivateKey:
        """The Diffie-Hellman key for the owner's session."""
        return self.key("emulated PDH")

    def sev_platform(self, profile: Profile) -> SevPlatform:
        """The six certificates, as the platform exports them."""
        api = (profile.api_major, profile.api_minor)
        name = "-".join(map(str, api))
        oca, cek = self.key("emulated OCA"), self.key("emulated CEK")

        def blank(usage: int, key: ec.EllipticCurvePrivateKey) -> SevCertificate:
            algorithm = ALGORITHM_ECDH if usage == USAGE_PDH else ALGORITHM_ECDSA
            return build_sev_certificate(usage=usage, algorithm=algorithm, key=key.public_key(), api=api)

        def make() -> bytes:
            made = (
                add_signature(blank(USAGE_PDH, self.pdh), self.pek, USAGE_PEK),
                add_signature(add_signature(blank(USAGE_PEK, self.pek), oca, USAGE_OCA), cek, USAGE_CEK),
                add_signature(blank(USAGE_OCA, oca), oca, USAGE_OCA),
                add_signature(blank(USAGE_CEK, cek), self.authority.ask, USAGE_ASK, sha384=True),
            )
            return b"".join(each.raw for each in made)

        chain = self.store.keep(f"legacy-{name}.certs", make)
        size = len(chain) // 4
        pdh, pek, oca_raw, cek_raw = (
            parse_sev_certificate(chain[at : at + size]).raw for at in range(0, len(chain), size)
        )
        return SevPlatform(
            pdh, pek, oca_raw, cek_raw, ask=self.authority.legacy_ask, ark=self.authority.legacy_root
        )

    def endorsement_key(self, profile: Profile) -> ec.EllipticCurvePrivateKey:
        """The VCEK or VLEK that signs reports under this profile."""
        tcb = encode_tcb(profile.tcb("reported"), profile.generation)
        return self.key(f"emulated {_kind(profile).value}", profile.generation.value.encode() + tcb)

    def snp_platform(self, profile: Profile) -> SnpPlatform:
        """The certificate table that a well configured host gives to a guest."""
        generation, kind = profile.generation, _kind(profile)
        tcb = profile.tcb("reported")
        chip_id = self.chip_id(generation)
        endorsement = Endorsement(
            kind=kind,
            generation=generation,
            product=PRODUCTS[generation],
            tcb=tcb,
            chip_id=(chip_id[:TURIN_CHIP_ID_BYTES] if generation is Generation.TURIN else chip_id)
            if kind is Kind.VCEK
            else None,
            provider=profile.provider if kind is Kind.VLEK else None,
        )
        name = f"{kind.value}-{generation.value}-{encode_tcb(tcb, generation).hex()}"
        if kind is Kind.VLEK:
            name += "-" + hashlib.sha256(profile.provider.encode()).hexdigest()[:16]
        key = self.endorsement_key(profile).public_key()
        certificate = self.store.keep(
            f"{name}.der",
            lambda: self.authority.endorse(generation, kind, key, endorsement_extensions(endorsement)),
        )
        entry = certificate_table.VLEK if kind is Kind.VLEK else certificate_table.VCEK
        return SnpPlatform(
            certificate_table.pack_certificate_table(
                {
                    entry: certificate,
                    certificate_table.ASK: self.authority.x509_intermediate(generation, kind),
                    certificate_table.ARK: self.authority.x509_root(generation),
                    certificate_table.CRL: self.authority.crl(generation),
                }
            )
        )


def _kind(profile: Profile) -> Kind:
    return Kind.VLEK if profile.signer is Signer.VLEK else Kind.VCEK
