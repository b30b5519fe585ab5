"""The VM's disks: a read-only root made of the tree, shared by all VMs, and a data disk for each.

The root is the tree, our files over it, and `vm/` beside this module over both: units of a fast boot.
The init mounts an overlay in memory above it, so data that a VM writes outside of `/data` is lost when it ends. After
the file system comes the hash tree (verity.py), with which a measured VM checks every block that it reads. `/data` has
the data of Docker, containerd and Sealift.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.machine.cache import contained, only_builder, remove_folder
from sealift.machine.initrd import kernel_release, module_bytes
from sealift.machine.recipe import copy_files, files_digest, lower_dirs
from sealift.machine.tree import FIXED_TIME
from sealift.machine.units import GENERATORS, MASKED, OWN_UNITS, UNIT_FOLDERS, WANTED
from sealift.machine.verity import append_hash_tree, has_beside, write_beside
from sealift.paths import cache_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Callable

DATA_DISK_BYTES = 16 << 30
"""A sparse file: it uses only the space of written data."""

_REVISION = 3
"""Increase it when the same tree and files give a different root disk."""

_ROOT_ID = "5ea11f70-0000-4000-8000-000000000001"
_FIXED_TIMES = {"E2FSPROGS_FAKE_TIME": FIXED_TIME, "SOURCE_DATE_EPOCH": FIXED_TIME}
"""The file system's own, and the latest that one of its files has."""

_SPARE_BYTES = 32 << 20

_MAKE_ROOT = """
set -e
tree=$1 layers=$2 building=$3 release=$4 id=$5 blocks=$6
mount --bind "$building" "$tree/mnt"
chroot "$tree" depmod -b /mnt/layer "$release"
mount -t overlay -o "lowerdir=$building/layer:$layers" root "$tree/mnt/view"
exec chroot "$tree" mke2fs -q -t ext4 -d /mnt/view -L sealift-root -U "$id" -m 0 -b 4096 -i 16384 \\
    -O ^has_journal,^metadata_csum,^resize_inode -E "hash_seed=$id,lazy_itable_init=0" /mnt/disk "$blocks"
"""
"""It runs in a mount namespace of its own with the tree's programs, so this machine does not need them."""


def build_disk(tree: Path, files: Path, *, say: Callable[[str], None] = print) -> Path:
    """The root disk (raw, ext4) of every VM with this tree and these files. It is made if it is not in the cache.

    A file beside it has the parameters of dm-verity (verity.py). It needs root and takes about 15 s.
    """
    with resources.as_file(resources.files("sealift.machine") / "vm") as vm_files:
        name = _digest(tree.name, files_digest(files), files_digest(vm_files), *MASKED, *WANTED, *OWN_UNITS)
        disk = cache_dir() / "disks" / f"{name}.ext4"
        if disk.is_file() and has_beside(disk):
            return disk
        with only_builder(disk.parent, say):
            if disk.is_file() and has_beside(disk):
                return disk
            say("making the VMs' root disk from the Debian tree")
            building = disk.with_suffix(".building")
            (building / "view").mkdir(parents=True)
            _lay_over(building / "layer", vm_files, tree)
            _make_root(tree, files, building)
            verity = append_hash_tree(building / "disk")
            (building / "disk").rename(disk)
            write_beside(disk, verity)
            remove_folder(building)
    return disk


def create_data_disk(path: Path, size_bytes: int = DATA_DISK_BYTES) -> None:
    """Make an empty data disk (raw, ext4, sparse) for one VM. An existing file is overwritten."""
    path.unlink(missing_ok=True)
    with path.open("xb") as disk:
        disk.truncate(size_bytes)
    path.chmod(0o600)
    run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "sealift-data", "-m", "0", "-i", "65536"),
            # Initialise everything now. Otherwise the kernel would initialise a new disk for minutes after its mount.
            *("-J", "size=16", "-O", "^resize_inode", "-E", "lazy_itable_init=0,lazy_journal_init=1", path),
        ]
    )


def _lay_over(layer: Path, vm_files: Path, tree: Path) -> None:
    """The VM's own layer over tree and files: units, masks, modules as in the initrd, mount points."""
    layer.mkdir(mode=0o755)
    copy_files(vm_files, layer)
    system = layer / "etc/systemd/system"
    for unit in MASKED:
        (system / unit).symlink_to("/dev/null")
    for folder in UNIT_FOLDERS:
        for link in sorted((tree / folder).glob("*.wants/*")):
            if link.name not in WANTED:
                _hide(layer / link.relative_to(tree))
    _hide(layer / GENERATORS)
    wants = system / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    for unit in OWN_UNITS:
        (wants / unit).symlink_to(f"../{unit}")
    for folder in ("data", "var/lib/docker", "var/lib/containerd", "var/lib/sealift"):
        (layer / folder).mkdir(parents=True)
    (layer / "lib").symlink_to("usr/lib")  # as in the tree; depmod looks there
    _unpack_modules(layer, tree)
    for made in (layer, *layer.rglob("*/")):
        made.chmod(0o755)


def _unpack_modules(layer: Path, tree: Path) -> None:
    release = kernel_release(tree)
    source = tree / "usr/lib/modules" / release
    target = layer / "usr/lib/modules" / release
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.suffix == ".xz":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.with_suffix("").write_bytes(module_bytes(path))
            _hide(copy)
        elif path.suffix == ".ko":  # Debian 12 compresses none
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(module_bytes(path))
        elif path.name.startswith(("modules.builtin", "modules.order")):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    order = target / "modules.order"
    order.write_text(order.read_text(encoding="utf-8").replace(".ko.xz", ".ko"), encoding="utf-8")


def _hide(path: Path) -> None:
    """Hide this name of lower layers (an overlayfs whiteout)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _make_root(tree: Path, files: Path, building: Path) -> None:
    used = sum(
        _space(Path(folder, name))
        for layer in (building / "layer", files, tree)
        for folder, _, names in os.walk(layer)
        for name in names
    )
    blocks = str((used * 105 // 100 + _SPARE_BYTES) >> 12)
    variables = (tree, lower_dirs(tree, files), building, kernel_release(tree), _ROOT_ID, blocks)
    run(
        [*contained(network=False), "sh", "-c", _MAKE_ROOT, "make-root", *variables],
        timeout_s=300,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **_FIXED_TIMES},
    )


def _space(path: Path) -> int:
    return -(-path.lstat().st_size // 4096) * 4096


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join((str(_REVISION), *parts)).encode()).hexdigest()[:16]
