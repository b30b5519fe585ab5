"""Container images for demos, tests and benchmarks. Each holds Debian's programs without an operating system.

A lab has no image registry. An image consists of unpacked packages (no maintainer script is run), a shell and a user
database. It is cached by the hash of its parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sealift.machine.cache import contained, remove_folder
from sealift.machine.mirror import debian_mirror, forwarded_options
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import KEYRING
from sealift.paths import cache_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sealift.host.ssh import Connection

REVISION = "2"
"""Raise it when the same description gives a different image."""

BUILD_TIMEOUT_S = 600
IMPORT_TIMEOUT_S = 300
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USERS = """root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/sh
workload:x:1000:1000:workload:/home/workload:/bin/sh
"""
GROUPS = "root:x:0:\nwww-data:x:33:\nworkload:x:1000:\n"
LEFT_OUT = (
    "doc",
    "man",
    "info",
    "locale",
    "lintian",
    "icons",
    "perl",
    "perl5",
    "i18n",
    "common-licenses",
    "gcc",
)
LIBRARIES_LEFT_OUT = ("gconv", "security", "libmvec.so*", "libdb-5*", "libsepol*", "libsemanage*")
"""Files for character sets and logins, which no workload opens."""


@dataclass(frozen=True)
class Image:
    """One image: Debian packages, and the command that a container of it runs."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    user: str = "root"
    strip: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """Its name in Docker."""
        return f"sealift-lab/{self.name}:1"


REDIS = Image(
    "redis",
    ("redis-server", "redis-tools"),
    ("redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no"),
    strip=("usr/bin/redis-check-aof", "usr/bin/redis-benchmark"),
)
POSTGRESQL = Image(
    "postgresql",
    ("postgresql-17", "postgresql-client-17"),
    (
        "/bin/sh",
        "-c",
        "export PATH=$PATH:/usr/lib/postgresql/17/bin; d=/home/workload/data; "
        "[ -d $d ] || { initdb -D $d -A trust && echo host all all all trust >>$d/pg_hba.conf; }; "
        "exec postgres -D $d -c listen_addresses='*' -c unix_socket_directories=/tmp",
    ),
    user="workload",
    strip=(  # without the JIT compiler and Debian's Perl tools, which are half of the size
        *("usr/lib/llvm-19", "usr/lib/x86_64-linux-gnu/libLLVM*", "usr/lib/x86_64-linux-gnu/libz3*"),
        *(
            "usr/lib/postgresql/17/lib/bitcode",
            "usr/lib/x86_64-linux-gnu/*perl*",
            "usr/bin/perl*",
            "usr/share/perl*",
        ),
    ),
)
NGINX = Image("nginx", ("nginx",), ("nginx", "-g", "daemon off; error_log stderr;"))
PYTHON = Image("python", ("python3",), ("python3",))

IMAGES = {image.name: image for image in (REDIS, POSTGRESQL, NGINX, PYTHON)}


def build(image: Image, *, say: Callable[[str], None]) -> Path:
    """Return the image's file system as a tar archive in the cache. It is made if it is missing."""
    left_out = [*LEFT_OUT, *LIBRARIES_LEFT_OUT, REVISION]
    described = json.dumps([asdict(image), RECIPE.suite, USERS, GROUPS, left_out], sort_keys=True)
    archive = (
        cache_dir() / "images" / f"{image.name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}.tar"
    )
    if archive.is_file():
        return archive
    say(f"building the container image {image.tag}, once")
    archive.parent.mkdir(parents=True, exist_ok=True)
    building = archive.with_suffix(f".{os.getpid()}.tar")
    root = archive.with_suffix(f".{os.getpid()}.root")
    try:
        run(
            [
                *contained(),
                "mmdebstrap",
                *_options(image),
                RECIPE.suite,
                root,
                f"deb [signed-by={KEYRING}] {debian_mirror()} {RECIPE.suite} main",
            ],
            timeout_s=BUILD_TIMEOUT_S,
        )
        _finish(root, image)
        reproducible = ["--sort=name", "--mtime=@0", "--numeric-owner", "--format=posix"]
        reproducible.append("--pax-option=delete=atime,delete=ctime")
        run(["tar", *reproducible, "-C", root, "-cf", building, "."], timeout_s=BUILD_TIMEOUT_S)
        building.rename(archive)
    finally:
        if root.exists():
            remove_folder(root)
        building.unlink(missing_ok=True)
    return archive


def provide(connection: Connection, image: Image, *, say: Callable[[str], None]) -> str:
    """Import the image on a Docker host unless it is there. Returns its tag."""
    if connection.run(["docker", "image", "inspect", image.tag], check=False).status != 0:
        settings = (f"CMD {json.dumps(image.command)}", f"USER {image.user}", f"ENV PATH={PATH}")
        changes = [word for setting in settings for word in ("--change", setting)]
        with build(image, say=say).open("rb") as archive:
            connection.feed(
                ["docker", "import", *changes, "-", image.tag], archive, timeout_s=IMPORT_TIMEOUT_S
            )
    return image.tag


def _options(image: Image) -> list[str]:
    options = [
        "--mode=root",
        "--format=directory",
        "--variant=extract",
        f"--include={','.join(('base-files', 'busybox-static', *image.packages))}",
    ]
    options += [f"--aptopt={option}" for option in ('APT::Install-Recommends "false"', *forwarded_options())]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    return options


def _finish(root: Path, image: Image) -> None:
    for name in LEFT_OUT:
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    for name in ("var/lib/apt", "var/cache", "var/lib/dpkg", "dev", "boot"):
        shutil.rmtree(root / name, ignore_errors=True)
    libraries = (f"usr/lib/x86_64-linux-gnu/{name}" for name in LIBRARIES_LEFT_OUT)
    for pattern in (*libraries, *image.strip):
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    (root / "etc/passwd").write_text(USERS)
    (root / "etc/group").write_text(GROUPS)
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    # Busybox does not make the folder that it installs into.
    (root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    run(["chroot", root, "/bin/busybox", "--install", "-s", "/usr/local/bin"])
    run(["chroot", root, "/bin/busybox", "ln", "-sf", "/bin/busybox", "/bin/sh"])
    for name in ("home/workload", "tmp", "run", "var/log/nginx", "var/lib/nginx", "var/cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "run").chmod(0o755)
    os.chown(root / "home/workload", 1000, 1000)
    run(["ldconfig", "-r", root])
