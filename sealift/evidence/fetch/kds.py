"""AMD's key distribution service: its addresses, and answers through the cache (VCEK/KDS, chapter 4).

What it fetches is not trusted for its origin: the verifier checks it against the pinned roots.
"""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sealift.errors import HostUnreachable, UnusableInput
from sealift.evidence.fetch.cache import Entry
from sealift.evidence.fetch.download import DEFAULT_PATIENCE, download
from sealift.evidence.formats.endorsement import CHIP_ID_BYTES, TURIN_CHIP_ID_BYTES, Kind
from sealift.evidence.formats.tcb import Generation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sealift.evidence.fetch.download import Patience
    from sealift.evidence.formats.tcb import Tcb

T = TypeVar("T")

HOST = "https://kdsintf.amd.com"


def vcek_path(generation: Generation, chip_id: bytes, tcb: Tcb) -> str:
    """The path of the VCEK of a chip at a TCB. The chip id has 64 bytes; Turin's path contains 8 of them."""
    turin = generation is Generation.TURIN
    size = TURIN_CHIP_ID_BYTES if turin else CHIP_ID_BYTES
    if len(chip_id) not in {size, CHIP_ID_BYTES} or not any(chip_id):
        raise UnusableInput(
            "without the chip's id its certificate cannot be fetched",
            remedy="The report masks it: ask the provider for the certificate, or for a VLEK",
        )
    levels = [("fmcSPL", tcb.fmc or 0)] if turin else []
    levels += [
        ("blSPL", tcb.boot_loader),
        ("teeSPL", tcb.tee),
        ("snpSPL", tcb.snp),
        ("ucodeSPL", tcb.microcode),
    ]
    query = "&".join(f"{name}={level:02d}" for name, level in levels)
    return f"vcek/v1/{_product(generation)}/{chip_id[:size].hex()}?{query}"


def chain_path(kind: Kind, generation: Generation) -> str:
    """The path of the intermediate and the root above a VCEK or VLEK (PEM)."""
    return f"{kind.value.lower()}/v1/{_product(generation)}/cert_chain"


def crl_path(kind: Kind, generation: Generation) -> str:
    """The path of the root's CRL (DER)."""
    return f"{kind.value.lower()}/v1/{_product(generation)}/crl"


def cek_path(platform_id: bytes) -> str:
    """The path of the CEK of a legacy platform, by the 64 bytes of its id."""
    return f"cek/id/{platform_id.hex()}"


@dataclass(frozen=True, slots=True)
class KeyServer:
    """Fetches by path, through a cache directory if it has one. `offline` uses only the cache."""

    cache: Path | None = None
    host: str = HOST
    offline: bool = False
    patience: Patience = DEFAULT_PATIENCE

    def fetch(self, path: str, read: Callable[[bytes], T], *, fresh: bool = False) -> T:
        """Fetch the content at a path and parse it by `read`. `fresh` (for CRLs) asks the server even if it is cached.

        `read` raises UnusableInput for content that it cannot use; such content is never kept. Several runs at the same
        time ask once. Raises HostUnreachable if neither server nor cache has the content.
        """
        if self.cache is None:
            return self._ask(path, read)[1]
        entry = Entry.of(self.cache, path)
        if self.offline or not fresh:
            found = entry.find(read)
            if found is not None:
                return found
        if self.offline:
            raise HostUnreachable(
                f"{_without_query(path)} is not in the cache",
                host=urllib.parse.urlsplit(self.host).hostname,
                remedy="Go online once, or give the certificates as files",
            )
        begun_ns = time.time_ns() if fresh else 0
        with entry.alone(self.patience.request_s + self.patience.busy_s):
            found = entry.find(read, since_ns=begun_ns)
            if found is not None:
                return found
            content, asked = self._ask(path, read)
            entry.keep(content)
            return asked

    def _ask(self, path: str, read: Callable[[bytes], T]) -> tuple[bytes, T]:
        url = f"{self.host}/{path}"
        name = urllib.parse.urlsplit(self.host).hostname
        if urllib.parse.urlsplit(url).scheme not in {"https", "http"}:
            raise UnusableInput("the key server's address is not an http one", remedy=f"Use {HOST}")
        content = download(url, _without_query(path), name, self.patience)
        try:
            return content, read(content)
        except UnusableInput as error:
            raise HostUnreachable(
                f"the answer from the key server's address is not {_without_query(path)}: {error.message}",
                host=name,
                remedy="Is a proxy or a login page in between? Avoid it, or give the certificates as files",
            ) from error


def _without_query(path: str) -> str:
    return path.split("?", maxsplit=1)[0]


def _product(generation: Generation) -> str:
    return generation.value.capitalize()
