"""An image's layers: which of them a host has, and `docker save` without those.

Docker loads an image layer by layer, from the lowest, and opens a layer's file only if its store does not have that
layer on the same ones below (moby, image/tarexport/load.go; tried on Docker 26 and 28).
"""

from __future__ import annotations

import hashlib
import http.client
import tarfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from . import docker_api
from .constants import BLOB_STORE
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

BLOBS = "blobs/sha256/"
"""Where Docker 25 and later have a layer in the archive, by the digest of its tar: OCI's image layout, version 1.0."""

FORMAT = tarfile.PAX_FORMAT
"""As Go writes names that are too long for a header."""


class Readable(Protocol):
    """What an archive is read from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, as many as asked for unless the end comes before."""


def present(layers: list[str]) -> int:
    """How many of an image's layers this host has, from the lowest on. `layers`: digests as Docker inspects an image.

    None of them where containerd keeps Docker's images. It loads an image without blobs that it has, but they may be
    compressed, in one of many ways, and what is known of a layer here is the digest of what its blob expands to.
    """
    if BLOB_STORE in (docker_api.call("GET", "/info").get("DriverStatus") or []):
        return 0
    most = 0
    for listed in docker_api.call("GET", "/images/json"):
        try:
            image = docker_api.call("GET", f"/images/{listed['Id']}/json")
        except docker_api.NotThere:
            continue  # removed meanwhile
        most = max(most, _in_common(layers, image["RootFS"].get("Layers") or []))
        if most == len(layers):
            break
    return most


def sizes(layers: list[str]) -> list[int]:
    """How many bytes each layer holds; 0 where that is not known. Docker's API has no way to ask for it.

    A layer on those below is named by the digest of their digests (moby, layer/layer.go, CreateChainID), and its size
    is in a file of its own (layer/filestore.go).
    """
    info = docker_api.call("GET", "/info")
    store = Path(info["DockerRootDir"]) / "image" / info["Driver"] / "layerdb/sha256"
    found, chain = [], ""
    for layer in layers:
        chain = "sha256:" + hashlib.sha256(f"{chain} {layer}".encode()).hexdigest() if chain else layer
        try:
            found.append(max(0, int((store / chain.rpartition(":")[2] / "size").read_text())))
        except (OSError, ValueError):
            found.append(0)
    return found


def send_without(
    left_out: Collection[str], archive: Readable, send: Callable[[bytes], object], chunk_bytes: int
) -> None:
    """Pass an archive of `docker save` on by `send`, without the files of these layers.

    A piece has about `chunk_bytes`, and no more than some pieces and the members' headers are kept at a time.
    AgentError for what is no whole archive.
    """
    names = {BLOBS + layer.rpartition(":")[2] for layer in left_out}
    try:
        if not names:
            while chunk := archive.read(chunk_bytes):
                send(chunk)
            return
        opened: Any = partial(tarfile.open, bufsize=chunk_bytes)
        sink = SimpleNamespace(write=send)
        with (
            opened(fileobj=archive, mode="r|") as saved,
            opened(fileobj=sink, mode="w|", format=FORMAT) as sent,
        ):
            sent.copybufsize = chunk_bytes  # less makes it copy each piece many times
            for member in saved:
                if member.name not in names:
                    sent.addfile(member, saved.extractfile(member) if member.isreg() else None)
    except (http.client.HTTPException, tarfile.TarError, ValueError) as broken:
        raise AgentError(f"what Docker saves of the image is no whole archive: {broken}", "sync") from broken


def _in_common(one: Iterable[str], other: Iterable[str]) -> int:
    """How many are the same, from the first on."""
    count = 0
    for this, that in zip(one, other):
        if this != that:
            break
        count += 1
    return count
