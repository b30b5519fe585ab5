"""The roots that are trusted: known by the SHA-256 of the whole certificate, never by a name or key id.

No certificate is bundled: it comes with the evidence, from a file, from the cache or from KDS, and only
one whose bytes hash to a pin is a root. A lab's root counts only if the policy names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.evidence.policy import ExtraRoot

# ARK of each product, SHA-256 of the DER (VCEK/KDS, section 3).
X509_ROOTS = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": "milan",
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": "genoa",
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": "turin",
}

# ARK in the format before X.509, SHA-256 of the 1600 bytes.
LEGACY_ROOTS = {
    "865977b268c16d5b27772b00aaefb4e737ba9499e818ed8e9f65b0cecefbc529": "rome",
    "1246469862b78a7a8625579b0378d1f8e975eb8b82a1623b579d7968a5969888": "milan",
    "8f4e3fd36589c23f1fe0c8338465bac7e2e066d97fc92f228bbee4fd356fb674": "genoa",
    "f6405e5096a6eee1eb7d5df75c49f9b9f7c8357a31c7fff150149d68588a7bf7": "turin",
}

# The certificates of Naples could not be had. What is known is the SHA-256 of the file ask_ark_naples.cert
# as AMD published it (ASK then ARK), from a public list whose values for Rome and Milan are right. So the
# pair is pinned: both certificates, all bytes of them.
LEGACY_PAIRS = {"4629ccff0b7dbe64de42925f7d6c97afc60143b4ad027cb6c51e50bfb35ccbf9": "naples"}


@dataclass(frozen=True, slots=True)
class Root:
    """A root that may be trusted, and on whose word."""

    sha256: str
    generation: str | None
    extra: bool = False
    emulated: bool = False


def find_root(
    sha256: str,
    pins: Mapping[str, str],
    extra_roots: tuple[ExtraRoot, ...],
    *,
    pair: str | None = None,
    pair_pins: Mapping[str, str] = LEGACY_PAIRS,
) -> Root | None:
    """The root that this fingerprint belongs to: AMD's pins first, then those that the policy names.

    `pair` is the fingerprint of ASK and ARK together, for a root that is only known so.
    """
    if sha256 in pins:
        return Root(sha256, pins[sha256])
    if pair is not None and pair in pair_pins:
        return Root(sha256, pair_pins[pair])
    for root in extra_roots:
        if root.sha256 == sha256:
            return Root(sha256, root.generation, extra=True, emulated=root.emulated)
    return None
