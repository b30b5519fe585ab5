"""The AMD extensions of a VCEK or VLEK certificate: the chip or provider that it endorses (VCEK/KDS, tables 8 and 9).

Extensions 1.3.6.1.4.1.3704.1.x. Generation and kind decide which of them exist: Turin has 3.9 and no 3.4,
and a VLEK names a provider (5) instead of a chip (4).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats import der
from sealift.evidence.formats.tcb import Generation, Tcb, generation_of_product
from sealift.evidence.formats.x509_certificate import Extension, printable

if TYPE_CHECKING:
    from sealift.evidence.formats.x509_certificate import X509Certificate

BASE = "1.3.6.1.4.1.3704.1."
OID_STRUCTURE = BASE + "1"
OID_PRODUCT = BASE + "2"
OID_CHIP = BASE + "4"
OID_PROVIDER = BASE + "5"
_LEVELS = {
    "boot_loader": BASE + "3.1",
    "tee": BASE + "3.2",
    "snp": BASE + "3.3",
    "microcode": BASE + "3.8",
}
_FMC = BASE + "3.9"
_SPARE_LEVELS = ("3.4", "3.5", "3.6", "3.7")

CHIP_ID_BYTES = 64
TURIN_CHIP_ID_BYTES = 8

_WHAT = "an extension of the endorsement key's certificate"


class Kind(StrEnum):
    """A chip's own key, or a key that AMD issues to a provider."""

    VCEK = "VCEK"
    VLEK = "VLEK"


SUBJECTS = {"SEV-VCEK": Kind.VCEK, "SEV-VLEK": Kind.VLEK}


@dataclass(frozen=True, slots=True)
class Endorsement:
    """The fields of a VCEK or VLEK. `chip_id` has 64 bytes, 8 on Turin; None for a VLEK."""

    kind: Kind
    generation: Generation
    product: str
    tcb: Tcb
    chip_id: bytes | None
    provider: str | None


def read_endorsement(certificate: X509Certificate) -> Endorsement:
    """Read the extensions. Raises UnusableInput if one is missing that this kind and generation need."""
    kind = SUBJECTS.get(certificate.subject_name)
    if kind is None:
        raise UnusableInput(
            f"a certificate of {certificate.subject_name[:40]!r} is not for an endorsement key",
            remedy="Give the VCEK or VLEK certificate, and the others as its chain",
        )
    product = _text(_demand(certificate, OID_PRODUCT).value)
    generation = generation_of_product(product)
    if generation is None:
        raise UnusableInput(
            f"the product {product[:40]!r} is not of a known generation",
            remedy="Its TCB cannot be read; use a release of Sealift that knows it",
        )
    levels = {name: _level(_demand(certificate, oid).value) for name, oid in _LEVELS.items()}
    if generation is Generation.TURIN:
        levels["fmc"] = _level(_demand(certificate, _FMC).value)
    chip = certificate.extension(OID_CHIP)
    provider = certificate.extension(OID_PROVIDER)
    if kind is Kind.VCEK:
        chip = _demand(certificate, OID_CHIP)
    return Endorsement(
        kind=kind,
        generation=generation,
        product=product,
        tcb=Tcb(**levels),
        chip_id=None if chip is None else _chip_id(chip.value, generation),
        provider=None if provider is None else _provider(provider.value),
    )


def endorsement_extensions(endorsement: Endorsement) -> tuple[Extension, ...]:
    """The extensions as AMD issues them: the chip id raw, everything else in DER."""
    turin = endorsement.generation is Generation.TURIN
    levels = endorsement.tcb.components()
    found = {
        OID_STRUCTURE: der.write_integer(1 if turin else 0),
        OID_PRODUCT: der.write(der.IA5_STRING, endorsement.product.encode("ascii", "replace")),
        **{oid: der.write_integer(levels[name]) for name, oid in _LEVELS.items()},
        **{BASE + spare: der.write_integer(0) for spare in _SPARE_LEVELS if not (turin and spare == "3.4")},
    }
    if turin:
        found[_FMC] = der.write_integer(levels.get("fmc", 0))
    if endorsement.chip_id is not None:
        found[OID_CHIP] = endorsement.chip_id
    if endorsement.provider is not None:
        found[OID_PROVIDER] = der.write(der.IA5_STRING, endorsement.provider.encode("ascii", "replace"))
    return tuple(Extension(oid, False, value) for oid, value in found.items())


def _demand(certificate: X509Certificate, oid: str) -> Extension:
    extension = certificate.extension(oid)
    if extension is None:
        raise UnusableInput(
            f"the endorsement key's certificate has no extension {oid}",
            remedy="Fetch it again from AMD's key server",
        )
    return extension


def _level(value: bytes) -> int:
    level = der.integer(der.read_whole(value, _WHAT), _WHAT)
    if not 0 <= level <= 255:
        raise der.broken(_WHAT)
    return level


def _text(value: bytes) -> str:
    element = der.read_whole(value, _WHAT)
    if element.tag not in {der.IA5_STRING, der.UTF8_STRING, der.PRINTABLE_STRING}:
        raise der.broken(_WHAT)
    return printable(element.value)


def _provider(value: bytes) -> str:
    # As with the chip id, some issuers omit the encoding.
    return _text(value) if value[:1] < b" " else printable(value)


def _chip_id(value: bytes, generation: Generation) -> bytes:
    # Raw from AMD; some issuers wrap the bytes in an OCTET STRING.
    size = TURIN_CHIP_ID_BYTES if generation is Generation.TURIN else CHIP_ID_BYTES
    for wanted in (size, CHIP_ID_BYTES):
        if len(value) == wanted:
            return value
        if len(value) == wanted + 2 and value[:2] == bytes((der.OCTET_STRING, wanted)):
            return value[2:]
    raise UnusableInput(
        f"the certificate's chip id has {len(value)} bytes",
        remedy=f"A {generation.value} chip's has {size}; fetch the certificate again",
    )
