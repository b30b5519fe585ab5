"""The initrd has what the kernel needs, in order, and is the same bytes for the same tree."""

import lzma
import shutil
import subprocess

import pytest

from sealift.errors import UnusableInput
from sealift.machine.initrd import build_initrd, cpio, initrd_bytes, kernel_of, load_order, module_bytes

DEPENDENCIES = {
    "kernel/net/core/failover.ko.xz": [],
    "kernel/drivers/net/net_failover.ko.xz": ["kernel/net/core/failover.ko.xz"],
    "kernel/drivers/net/virtio_net.ko.xz": [
        "kernel/drivers/net/net_failover.ko.xz",
        "kernel/net/core/failover.ko.xz",
    ],
    "kernel/drivers/md/dm-mod.ko.xz": [],
}


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "tree"
    modules = tree / "usr/lib/modules/6.12-test"
    for name in DEPENDENCIES:
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).write_bytes(lzma.compress(name.encode()))
    (modules / "modules.dep").write_text(
        "".join(f"{name}: {' '.join(needed)}\n" for name, needed in DEPENDENCIES.items())
    )
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz-6.12-test").write_bytes(b"kernel")
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/busybox").write_bytes(b"\x7fELF")
    return tree


def test_what_a_module_needs_is_loaded_before_it():
    order = [path.rsplit("/", 1)[1] for path in load_order(DEPENDENCIES, ["virtio_net"])]
    assert order == ["failover.ko.xz", "net_failover.ko.xz", "virtio_net.ko.xz"]


def test_a_module_is_known_by_its_name_with_underscores():
    assert load_order(DEPENDENCIES, ["dm_mod"]) == ["kernel/drivers/md/dm-mod.ko.xz"]


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(UnusableInput, match="no_such"):
        load_order(DEPENDENCIES, ["no_such"])


def test_what_is_built_in_is_left_out_and_some_may_be_missing(tree):
    with pytest.raises(UnusableInput, match="ext4"):
        initrd_bytes(tree, ("ext4",))
    plain = initrd_bytes(tree, ("virtio_net",))
    assert initrd_bytes(tree, ("virtio_net", "sha256_ssse3", "ip_tables")) == plain
    builtin = tree / "usr/lib/modules/6.12-test/modules.builtin"
    builtin.write_text("kernel/fs/ext4/ext4.ko\n")
    assert initrd_bytes(tree, ("ext4", "virtio_net")) == plain


def test_the_same_tree_gives_the_same_bytes(tree, tmp_path):
    first = initrd_bytes(tree, ("virtio_net",))
    again = shutil.copytree(tree, tmp_path / "copy")
    assert initrd_bytes(again, ("virtio_net",)) == first
    assert initrd_bytes(tree, ("dm_mod",)) != first


def test_it_is_kept_in_the_cache_under_its_hash(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("SEALIFT_CACHE", str(tmp_path / "cache"))
    path = build_initrd(tree, ("virtio_net",), ())
    assert path.read_bytes() == initrd_bytes(tree, ("virtio_net",))
    assert build_initrd(tree, ("virtio_net",), ()) == path
    assert kernel_of(tree).name == "vmlinuz-6.12-test"


def test_modules_lose_compression_and_signature(tmp_path):
    signature = b"S" * 70
    trailer = bytes(8) + len(signature).to_bytes(4, "big") + b"~Module signature appended~\n"
    module = tmp_path / "x.ko.xz"
    module.write_bytes(lzma.compress(b"\x7fELF module" + signature + trailer))
    assert module_bytes(module) == b"\x7fELF module"


def test_cpio_reads_what_was_written(tmp_path):
    archiver = shutil.which("cpio") or shutil.which("busybox")
    if archiver is None:
        pytest.skip("neither cpio nor busybox is installed")
    archive = cpio({"init": (0o755, b"#!/bin/sh\n"), "modules/a.ko": (0o644, b"abc")})
    command = [archiver] if archiver.endswith("cpio") else [archiver, "cpio"]
    subprocess.run(
        [*command, "-i", "init", "modules", "modules/a.ko"], input=archive, cwd=tmp_path, check=True
    )
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "modules/a.ko").read_bytes() == b"abc"
