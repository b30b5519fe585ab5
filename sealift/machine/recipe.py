"""The recipe of the Debian tree: packages from two suites, and our own files.

It has two hashes, because the two parts change at different rates. The hash of the packages names the tree's folder in
the cache; installing them takes a minute. The files are laid over the tree, which takes no time. Neither depends on the
mirror.

`files/` beside this module mirrors `/`. `files_dir()` returns a copy of it that root owns and that has the right modes,
independent of the owner of the checkout or the wheel. It is used as an overlay lower directory above the tree.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING

from sealift.paths import cache_dir

if TYPE_CHECKING:
    from pathlib import Path

EXECUTABLE_FOLDERS = ("usr/libexec/sealift/", "usr/local/bin/", "usr/local/sbin/")
"""Files below these get mode 0755, all others 0644, since a wheel may not keep modes."""


@dataclass(frozen=True)
class Recipe:
    """Packages of one tree. Increase `revision` when tree.py makes another tree from the same packages."""

    suite: str
    packages: tuple[str, ...]
    testing_packages: tuple[str, ...]
    left_out: tuple[str, ...]
    older_packages: tuple[str, ...] = ()
    revision: int = 2

    @property
    def digest(self) -> str:
        """Short hash of the recipe: the tree's name in the cache. An empty field is left out."""
        parts = {name: value for name, value in asdict(self).items() if value != ()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


RECIPE = Recipe(
    suite="trixie",
    packages=(
        # a machine that boots
        "busybox-static",
        "dbus",
        "e2fsprogs",
        "kmod",
        "linux-image-cloud-amd64",
        "procps",
        "systemd",
        "systemd-sysv",
        "udev",
        # reached over SSH, and moved to over a tunnel
        "ca-certificates",
        "iperf3",
        "iproute2",
        "iptables",
        "iputils-ping",
        "nftables",
        "openssh-server",
        "rsync",
        "tcpdump",
        "wireguard-go",
        "wireguard-tools",
        "zstd",
        # a Docker host
        "containerd",
        "docker-cli",
        "docker.io",
        "python3",
        "runc",
        "tcc",  # for sealift_agent.limits, if a host has no CAP_SYS_RESOURCE
        "tini",
        # an encrypted disk in a VM, and a verified root below it
        "cryptsetup-bin",
        "dmsetup",
        # a provider
        "python3-cryptography",
        "qemu-system-x86",
        "qemu-utils",
    ),
    # Debian 13's CRIU cannot dump a socket on kernels from 6.16 on; its OVMF has no kernel-hashes table.
    testing_packages=("criu", "ovmf-amdsev"),
    left_out=(
        "/usr/share/doc/*",
        "/usr/share/info/*",
        "/usr/share/lintian/*",
        "/usr/share/locale/*",
        "/usr/share/man/*",
        "/usr/share/bash-completion/*",
        "/usr/share/zsh/*",
    ),
)

_DOCKER = ("containerd", "docker-cli", "docker.io", "runc")

RECIPES: dict[str, Recipe] = {
    "26": RECIPE,
    "28": replace(
        RECIPE,
        packages=tuple(package for package in RECIPE.packages if package not in _DOCKER),
        testing_packages=(*RECIPE.testing_packages, *_DOCKER),
    ),
}
"""By major version of Docker: Debian 13's, and Debian testing's."""

CLOUD = "cloud"
_CLOUD_KERNEL = "linux-image-cloud-amd64"
_WITH_APPARMOR = {
    "generic": {"packages": ("linux-image-amd64",)},
    "6.1": {"older_packages": (_CLOUD_KERNEL,)},
    "testing": {"testing_packages": (_CLOUD_KERNEL,)},
}
KERNELS = (CLOUD, *_WITH_APPARMOR)
"""Kernels of a lab's VMs: Debian 13's for clouds, its generic one, Debian 12's (6.1), and Debian testing's.

All but the first have AppArmor on, as Debian installs them; the first has no security module, because it boots faster.
"""


def recipe(docker: str, kernel: str = CLOUD) -> Recipe:
    """The packages of a host with this version of Docker (`RECIPES`) and this kernel (`KERNELS`)."""
    plain = RECIPES[docker]
    if kernel == CLOUD:
        return plain
    others = tuple(package for package in plain.packages if package != _CLOUD_KERNEL)
    # Kernels depend on a maker of initrds, and testing's would take another one.
    plain = replace(plain, packages=(*others, "apparmor", "initramfs-tools"))
    more = _WITH_APPARMOR[kernel]
    return replace(plain, **{field: getattr(plain, field) + names for field, names in more.items()})


def files_dir() -> Path:
    """Our own files for every tree, as an overlay lower directory above it."""
    with resources.as_file(resources.files("sealift.machine") / "files") as source:
        return stage_files(source, cache_dir() / "files")


def stage_files(source: Path, into: Path) -> Path:
    """Copy a folder that mirrors `/` to `into`/HASH, owned by the current user, with a host's modes."""
    staged = into / files_digest(source)
    if staged.is_dir():
        return staged
    into.mkdir(parents=True, exist_ok=True)
    building = into / f"{staged.name}.{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o755)
    copy_files(source, building)
    try:
        building.rename(staged)
    except OSError:  # another program has made the same content first
        shutil.rmtree(building)
    return staged


def copy_files(source: Path, into: Path) -> None:
    """Copy all files below a folder, and set a host's modes."""
    for path in _files(source):
        name = path.relative_to(source)
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(_mode(name))
    for folder in into.rglob("*/"):
        folder.chmod(0o755)


def files_digest(source: Path) -> str:
    """Short hash of names, modes and contents of all files below a folder."""
    state = hashlib.sha256()
    for path in _files(source):
        name = path.relative_to(source)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        state.update(f"{name}\0{_mode(name):o}\0{content}\n".encode())
    return state.hexdigest()[:16]


def lower_dirs(tree: Path, files: Path) -> str:
    """Value of overlayfs' `lowerdir=` for a host's root: our files above the tree."""
    return f"{files}:{tree}"


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".gitkeep" and "__pycache__" not in path.parts
    )


def _mode(name: Path) -> int:
    return 0o755 if str(name).startswith(EXECUTABLE_FOLDERS) else 0o644
