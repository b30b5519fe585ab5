"""Container images of Debian's packages as they are: maintainer scripts are run, and only documentation is left out.

Several programs share one image, since most of an image is the same. Each image is cached by the hash of its
description.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from sealift.machine.cache import contained
from sealift.machine.mirror import debian_mirror, forwarded_options
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import KEYRING
from sealift.paths import cache_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sealift.host.ssh import Connection

BUILD_TIMEOUT_S = 1800
IMPORT_TIMEOUT_S = 600
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LEFT_OUT = ("doc", "info", "locale", "lintian")
ALWAYS = ("ca-certificates", "iproute2", "procps", "python3")
"""What every image has: certificates, and what start scripts use."""

PREFIX = "sealift-stock"


def archive_of(name: str, packages: tuple[str, ...]) -> Path:
    """Where the image with these packages is cached."""
    described = json.dumps([name, RECIPE.suite, ALWAYS, LEFT_OUT, packages])
    return cache_dir() / "images" / f"stock-{name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}.tar"


def build(name: str, packages: tuple[str, ...], *, say: Callable[[str], None]) -> Path:
    """Return the image's file system as a tar archive in the cache. It is made if it is missing."""
    archive = archive_of(name, packages)
    if archive.is_file():
        return archive
    say(f"building the image of stock programs {name!r}, once")
    archive.parent.mkdir(parents=True, exist_ok=True)
    building = archive.with_suffix(f".{os.getpid()}.tar")
    options = [f"--aptopt={option}" for option in ('APT::Install-Recommends "false"', *forwarded_options())]
    options += [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in LEFT_OUT]
    try:
        run(
            [
                *contained(),
                "mmdebstrap",
                "--mode=root",
                "--format=tar",
                "--variant=essential",
                f"--include={','.join((*ALWAYS, *packages))}",
                *options,
                RECIPE.suite,
                building,
                f"deb [signed-by={KEYRING}] {debian_mirror()} {RECIPE.suite} main",
            ],
            timeout_s=BUILD_TIMEOUT_S,
        )
        building.rename(archive)
    finally:
        building.unlink(missing_ok=True)
    return archive


def provide(
    connection: Connection, name: str, packages: tuple[str, ...], *, say: Callable[[str], None]
) -> str:
    """Import the image on a Docker host in place of other stock images, unless it is there. Returns its tag.

    A host of a lab keeps images in memory, so it has one of them at a time.
    """
    archive = build(name, packages, say=say)
    tag = f"{PREFIX}/{name}:{archive.stem.rpartition('-')[2]}"
    listed = connection.run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split()
    if tag in listed:
        return tag
    for other in listed:
        if other.startswith(f"{PREFIX}/"):
            connection.run(["docker", "image", "rm", "--force", other], check=False)
    with archive.open("rb") as content:
        connection.feed(
            ["docker", "import", "--change", f"ENV PATH={PATH}", "-", tag],
            content,
            timeout_s=IMPORT_TIMEOUT_S,
        )
    return tag
