"""The image that the suite's programs run in: Debian, `make`, the libraries that they need, and the built suite."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

from benchmarks.compat import stock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sealift.host.ssh import Connection

PACKAGES = ("iptables", "libaio1t64", "libbsd0", "libcap2", "libnl-route-3-200", "make", "nftables")
PLACE = "zdtm"
REPOSITORY = "sealift-zdtm"
COMMIT = """
made=$(docker create "$1" true); trap 'docker rm "$made" >/dev/null' EXIT
docker cp - "$made:/"; docker commit "$made" "$2" >/dev/null
"""


def packed(suite: Path) -> bytes:
    """The suite as a tar archive that is laid over `/`, in the folder `zdtm`. Results of earlier runs stay out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(suite, PLACE, filter=_owned_by_root)
    return buffer.getvalue()


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if entry.name.endswith((".pid", ".out", ".test")):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def provide(host: Connection, suite: bytes, *, say: Callable[[str], None]) -> str:
    """Make the image on a Docker host, unless it is there. `suite` is of `packed`. Returns its tag."""
    base = stock.provide(host, PLACE, PACKAGES, say=say)
    told = hashlib.sha256(base.encode() + suite).hexdigest()[:16]
    tag = f"{REPOSITORY}:{told}"
    listed = host.run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split()
    if tag not in listed:
        host.run(["sh", "-euc", COMMIT, "sh", base, tag], stdin=suite, timeout_s=300)
    return tag
