"""The Debian tree: built once by mmdebstrap, kept in the cache under the hash of its recipe.

It is the root of every namespaced host (read-only, below an overlay), and the source of the VMs' disk. The same
packages give the same contents at any time and on any machine: logs, caches and backups of the installation are
removed, and all dates in files are `FIXED_TIME`.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from sealift.errors import PrerequisiteMissing
from sealift.machine.cache import contained, only_builder, remove_folder
from sealift.machine.mirror import debian_mirror, forwarded_options
from sealift.paths import cache_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sealift.machine.recipe import Recipe

BUILD_TIMEOUT_S = 1200
SPACE_NEEDED_BYTES = 2 << 30
FIXED_TIME = "1700000000"
"""Seconds since 1970: the date that programs use when they write a date into the result."""

OLDER = "bookworm"
"""The suite of `Recipe.older_packages`."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_TRACES = (
    "var/log/* var/cache/* var/lib/apt/lists/* tmp/* run/*",
    "etc/.pwd.lock etc/*- var/lib/dpkg/*-old var/lib/systemd/catalog/database",
)
"""Files with the date and the log of the installation, which a host does not need."""


def tree_path(recipe: Recipe) -> Path:
    """The folder of the recipe's tree, which exists once the tree is built."""
    return cache_dir() / "trees" / recipe.digest


def build_tree(recipe: Recipe, *, say: Callable[[str], None]) -> Path:
    """The recipe's tree. It is built if it is not in the cache.

    If two programs build at the same time, the second waits for the first and uses its tree. Remains of a killed build
    are removed. Raises PrerequisiteMissing without root or mmdebstrap, CommandFailed when the build fails.
    """
    tree = tree_path(recipe)
    if tree.is_dir():
        return tree
    if os.geteuid() != 0:
        raise PrerequisiteMissing(
            "only root can build the Debian tree", remedy="Run this as root, for example with sudo"
        )
    if shutil.which("mmdebstrap") is None:
        raise PrerequisiteMissing(
            "mmdebstrap, which builds the Debian tree, is not installed on this machine",
            remedy="`apt-get install mmdebstrap`",
        )
    trees = tree.parent
    with only_builder(trees, say):
        if tree.is_dir():
            return tree
        free_bytes = shutil.disk_usage(trees).free
        if free_bytes < SPACE_NEEDED_BYTES:
            raise PrerequisiteMissing(
                f"{trees} has {free_bytes >> 20} MiB free, the Debian tree takes {SPACE_NEEDED_BYTES >> 20}",
                remedy="Free some, or set SEALIFT_CACHE to another folder",
            )
        building = trees / f"{recipe.digest}.building"
        building.mkdir()
        _bootstrap(recipe, building, say)
        (building / "tree").rename(tree)
        remove_folder(building)
    return tree


def _bootstrap(recipe: Recipe, building: Path, say: Callable[[str], None]) -> None:
    mirror = debian_mirror()
    say(f"building the Debian tree from {mirror}, once; this takes about a minute")
    deb = f"deb [signed-by={KEYRING}] {mirror}"
    others = ["testing", *([OLDER] if recipe.older_packages else [])]
    (building / "sources").write_text(
        "".join(f"{deb} {suite} main\n" for suite in (recipe.suite, *others)), encoding="utf-8"
    )
    # No package comes from these unless it is requested by name.
    (building / "preferences").write_text(
        "".join(
            f"Package: *\nPin: release {'a' if suite == 'testing' else 'n'}={suite}\nPin-Priority: 100\n\n"
            for suite in others
        ),
        encoding="utf-8",
    )
    run(
        [*contained(), *_mmdebstrap(recipe, building)],
        timeout_s=BUILD_TIMEOUT_S,
        # Read by the kernel package's hook: the VM's initrd is made by initrd.py, so this saves 10 s.
        env=os.environ | {"INITRD": "No", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": FIXED_TIME},
        remedy="If the mirror could not be reached, try again",
    )
    _trust_compiled(building / "tree")


def _mmdebstrap(recipe: Recipe, building: Path) -> list[str]:
    apt_options = [
        'Acquire::Languages "none"',
        'APT::Install-Recommends "false"',
        *forwarded_options(),
    ]
    dpkg_options = ["force-unsafe-io", *(f"path-exclude={path}" for path in recipe.left_out)]
    return [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
        *(f"--aptopt={option}" for option in apt_options),
        *(f"--dpkgopt={option}" for option in dpkg_options),
        f'--setup-hook=install -D -m 644 "{building}/preferences" "$1/etc/apt/preferences.d/sealift"',
        f"--include={','.join(recipe.packages)}",
        # Their dependencies are also in the suite above, but too old. So they are installed later, with this option.
        '--customize-hook=chroot "$1" apt-get -y --no-install-recommends -t testing install '
        + " ".join(recipe.testing_packages),
        *_older(recipe),
        # A host of the lab installs nothing, and an image does not name its mirror.
        '--customize-hook=rm -rf "$1"/etc/apt/sources.list* "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        # Each host gets its own files.
        '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname "$1"/etc/resolv.conf',
        '--customize-hook=: > "$1"/etc/machine-id',
        *(f'--customize-hook=cd "$1" && rm -rf {what}' for what in _TRACES),
        recipe.suite,
        str(building / "tree"),
        str(building / "sources"),
    ]


def _older(recipe: Recipe) -> list[str]:
    if not recipe.older_packages:
        return []
    names = " ".join(recipe.older_packages)
    return [f'--customize-hook=chroot "$1" apt-get -y --no-install-recommends -t {OLDER} install {names}']


def _trust_compiled(tree: Path) -> None:
    """Make Python use its compiled modules without a check of their sources.

    With SOURCE_DATE_EPOCH it has compiled them with a hash of the source, which is checked at each import (PEP 552).
    The usual check by the source's time would fail, since a root disk has other times.
    """
    for path in (tree / "usr").rglob("*.pyc"):
        with path.open("r+b") as compiled:
            flags_at, checked, unchecked = 4, b"\x03\0\0\0", b"\x01\0\0\0"
            compiled.seek(flags_at)
            if compiled.read(4) == checked:
                compiled.seek(flags_at)
                compiled.write(unchecked)
