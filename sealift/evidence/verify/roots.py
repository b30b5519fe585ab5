"""The trusted roots: identified by the SHA-256 of the whole certificate, never by a name or key id.

Sealift contains no certificate. A root comes with the evidence, from a file, from the cache or from KDS. It is trusted
only if its SHA-256 is a pin. A lab's root is trusted only if the policy names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.evidence.verify.policy import ExtraRoot

# ARK of each product, SHA-256 of the DER (VCEK/KDS, section 3).
X509_ROOTS = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": "milan",
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": "genoa",
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": "turin",
}

# ARK in the format before X.509, SHA-256 of the 1600 bytes; Naples' has 832. AMD's first ARK of Naples was not
# signed. The pinned one is signed by itself.
LEGACY_ROOTS = {
    "dedabca561e1dece8cc00b7bda864cf5f20b95017864408cfe18eaee0dce24b9": "naples",
    "865977b268c16d5b27772b00aaefb4e737ba9499e818ed8e9f65b0cecefbc529": "rome",
    "1246469862b78a7a8625579b0378d1f8e975eb8b82a1623b579d7968a5969888": "milan",
    "8f4e3fd36589c23f1fe0c8338465bac7e2e066d97fc92f228bbee4fd356fb674": "genoa",
    "f6405e5096a6eee1eb7d5df75c49f9b9f7c8357a31c7fff150149d68588a7bf7": "turin",
}


@dataclass(frozen=True, slots=True)
class Root:
    """A trusted root: pinned here, or named by the policy (`extra`)."""

    sha256: str
    generation: str | None
    extra: bool = False
    emulated: bool = False


def find_root(sha256: str, pins: Mapping[str, str], extra_roots: tuple[ExtraRoot, ...]) -> Root | None:
    """The trusted root with this fingerprint: one of AMD's pins, else one that the policy names."""
    if sha256 in pins:
        return Root(sha256, pins[sha256])
    for root in extra_roots:
        if root.sha256 == sha256:
            return Root(sha256, root.generation, extra=True, emulated=root.emulated)
    return None
