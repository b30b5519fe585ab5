"""AMD's key distribution service, and a directory that keeps what it said (VCEK/KDS, chapter 4).

An edge: the one module of the library that uses the network. What it fetches is trusted no more than what
a stranger hands over: the verifier checks it against the pinned roots.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.errors import HostUnreachable, UnusableInput
from sealift.evidence.endorsement import CHIP_ID_BYTES, TURIN_CHIP_ID_BYTES, Kind
from sealift.evidence.tcb import Generation

if TYPE_CHECKING:
    from sealift.evidence.tcb import Tcb

HOST = "https://kdsintf.amd.com"
SIZE_LIMIT = 64 * 1024


def vcek_path(generation: Generation, chip_id: bytes, tcb: Tcb) -> str:
    """Where the VCEK of a chip at a TCB is. The chip id: 64 bytes, of which Turin's address has 8."""
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
    """Where the intermediate and the root above a VCEK or VLEK are (PEM)."""
    return f"{kind.value.lower()}/v1/{_product(generation)}/cert_chain"


def crl_path(kind: Kind, generation: Generation) -> str:
    """Where the root's CRL is (DER)."""
    return f"{kind.value.lower()}/v1/{_product(generation)}/crl"


def cek_path(platform_id: bytes) -> str:
    """Where the CEK of a legacy platform is, by the 64 bytes of its id."""
    return f"cek/id/{platform_id.hex()}"


@dataclass(frozen=True, slots=True)
class KeyServer:
    """Fetches by path, through a cache directory if there is one. `offline` asks the cache only."""

    cache: Path | None = None
    host: str = HOST
    offline: bool = False
    timeout_s: float = 20.0

    def fetch(self, path: str, *, fresh: bool = False) -> bytes:
        """The content at a path; `fresh` asks the server even if the cache has it (for CRLs).

        Raises HostUnreachable if neither has it.
        """
        kept = self.cache / _file_name(path) if self.cache else None
        if kept is not None and kept.is_file() and (self.offline or not fresh):
            with kept.open("rb") as file:
                return file.read(SIZE_LIMIT)
        if self.offline:
            raise HostUnreachable(
                f"{path.split('?', maxsplit=1)[0]} is not in the cache",
                host=urllib.parse.urlsplit(self.host).hostname,
                remedy="Go online once, or give the certificates as files",
            )
        content = self._download(path)
        if kept is not None:
            _keep(kept, content)
        return content

    def _download(self, path: str) -> bytes:
        url = f"{self.host}/{path}"
        name = urllib.parse.urlsplit(self.host).hostname
        if urllib.parse.urlsplit(url).scheme not in {"https", "http"}:
            raise UnusableInput("the key server's address is not an http one", remedy=f"Use {HOST}")
        request = urllib.request.Request(url, headers={"Accept": "*/*"})  # noqa: S310 - the scheme was checked
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:  # noqa: S310 - as above
                content: bytes = answer.read(SIZE_LIMIT + 1)
        except (urllib.error.URLError, OSError, ValueError) as error:
            status = getattr(error, "code", None)
            said = f"answers {status}" if status else "does not answer"
            raise HostUnreachable(
                f"the key server {said} for {path.split('?', maxsplit=1)[0]}",
                host=name,
                remedy="It limits requests: wait and retry, use a cache, or give the certificates as files",
            ) from error
        if not content or len(content) > SIZE_LIMIT:
            raise HostUnreachable("the key server's answer has an impossible size", host=name, remedy="Retry")
        return content


def _product(generation: Generation) -> str:
    return generation.value.capitalize()


def _file_name(path: str) -> str:
    # Readable, and bound to the whole path whatever characters that has.
    readable = re.sub(r"[^A-Za-z0-9]+", "_", path)[:80]
    return f"{readable}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def _keep(kept: Path, content: bytes) -> None:
    # Written aside and renamed: a reader never sees half a certificate.
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as aside:
            aside.write(content)
        Path(aside.name).replace(kept)
    except OSError as error:
        raise UnusableInput(
            f"the cache {kept.parent} cannot be written: {error.strerror}", remedy="Name another with --cache"
        ) from error
    kept.chmod(0o644)  # certificates are public, temporary files are not
