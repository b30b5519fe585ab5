"""The six certificates of a legacy SEV platform: ARK→ASK→CEK→PEK→PDH, with the owner's OCA beside the CEK.

They come as single files, as QMP's `cert-chain` (PEK‖OCA‖CEK) with a separate PDH, as AMD's ASK‖ARK, or as one
exported chain (PDH‖PEK‖OCA‖CEK‖ASK‖ARK).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats import amd_certificate as amd
from sealift.evidence.formats import sev_certificate as sev

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sealift.evidence.formats.amd_certificate import AmdCertificate
    from sealift.evidence.formats.sev_certificate import SevCertificate

SIZE_LIMIT = 4 * sev.SIZE + 2 * max(amd.SIZES)

_SEV_USAGES = {sev.USAGE_OCA: "oca", sev.USAGE_PEK: "pek", sev.USAGE_PDH: "pdh", sev.USAGE_CEK: "cek"}
_AMD_USAGES = {amd.USAGE_ARK: "ark", amd.USAGE_ASK: "ask"}


@dataclass(frozen=True, slots=True)
class PlatformChain:
    """The given certificates by role. `strays` describes certificates without a known role."""

    pdh: SevCertificate | None = None
    pek: SevCertificate | None = None
    oca: SevCertificate | None = None
    cek: SevCertificate | None = None
    ask: AmdCertificate | None = None
    ark: AmdCertificate | None = None
    strays: tuple[str, ...] = ()

    def certificates(self) -> list[SevCertificate | AmdCertificate]:
        """All given certificates, in the order of an exported chain."""
        found = (self.pdh, self.pek, self.oca, self.cek, self.ask, self.ark)
        return [each for each in found if each is not None]

    def export(self) -> bytes:
        """One exported chain, PDH first."""
        return b"".join(each.raw for each in self.certificates())


def split_certificates(data: bytes) -> list[SevCertificate | AmdCertificate]:
    """The certificates in a blob, in its order."""
    if len(data) > SIZE_LIMIT:
        raise UnusableInput(
            f"a platform's certificates have at most {SIZE_LIMIT} bytes, and this has {len(data)}",
            remedy="Give the six certificates or one exported chain",
        )
    return list(_split(bytes(data)))


def collect_platform(certificates: Iterable[SevCertificate | AmdCertificate]) -> PlatformChain:
    """Sort certificates by role. They may come in any order."""
    found: dict[str, SevCertificate | AmdCertificate] = {}
    strays = []
    for certificate in certificates:
        usages = _SEV_USAGES if isinstance(certificate, sev.SevCertificate) else _AMD_USAGES
        role = usages.get(certificate.usage)
        if role is None:
            strays.append(f"usage {certificate.usage_name}")
        elif role in found and found[role].raw != certificate.raw:
            raise UnusableInput(
                f"two different certificates say that they are the {role.upper()}",
                remedy="Give the certificates of one platform",
            )
        else:
            found[role] = certificate
    return PlatformChain(**found, strays=tuple(strays))  # type: ignore[arg-type] # each usage belongs to its type


def _split(data: bytes) -> Iterator[SevCertificate | AmdCertificate]:
    at = 0
    while at < len(data):
        size = _size_at(data, at)
        piece = data[at : at + size]
        yield sev.parse_sev_certificate(piece) if size == sev.SIZE else amd.parse_amd_certificate(piece)
        at += size
    if not at:
        raise UnusableInput("there is no certificate in an empty file", remedy="Export the chain again")


def _size_at(data: bytes, at: int) -> int:
    rest = len(data) - at
    if rest == sev.SIZE or rest in amd.SIZES:
        return rest
    if rest >= 12 and struct.unpack_from("<I", data, at + 8)[0] in _SEV_USAGES:
        return sev.SIZE
    if rest >= 64:
        bits = struct.unpack_from("<I", data, at + 60)[0]
        for size, number in amd.SIZES.items():
            if bits == number * 8:
                return size
    if rest > sev.SIZE:
        # A certificate of an unknown usage is kept, so that the verdict names it.
        return sev.SIZE
    raise UnusableInput(
        f"{rest} bytes at offset {at} are not a SEV certificate",
        remedy="Give certificates of 2084, 1600 or 832 bytes, or chains of them",
    )
