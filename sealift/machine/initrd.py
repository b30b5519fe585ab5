"""The VM's initrd: the modules that it needs before it has a root, busybox, dmsetup, and a short init.

It is not made by initramfs-tools. So it has a tenth of the size, no compression (decompression is slow under
emulation) and no udev, and the same tree gives the same bytes, as a measured boot needs.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
from functools import lru_cache
from importlib import resources
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.machine.acpi import dsdt
from sealift.paths import cache_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

BOOT_MODULES = (
    *("virtio_pci", "crc32c_generic", "ext4", "virtio_blk", "virtio_net", "overlay"),
    *("sha256_ssse3", "dm_verity"),
)
"""Modules for the init. What is built in is left out: ext4 and virtio_pci in Debian's cloud kernel, for example.

ext4 asks for crc32c by a name that only modprobe resolves. sha256_ssse3 uses the processor's instructions for SHA-256.
dm_verity chooses the best implementation when it starts."""

EXPECTED_MODULES = (
    *("autofs4", "ip_tables"),  # systemd
    *(
        "bridge",
        "br_netfilter",
        "nf_conntrack_netlink",
        "nft_chain_nat",
        "nft_compat",
        "nft_ct",
        "veth",
        "xfrm_user",
    ),
    *("xt_MASQUERADE", "xt_addrtype", "xt_conntrack"),
)
"""Modules that systemd and Docker always load. Each load starts a process, which takes longer than the load itself:
2 s of 29 until Docker answers."""

MAY_LACK = {"crc32c_generic", "sha256_ssse3", *EXPECTED_MODULES}
"""Without these a VM boots, too: newer kernels have the checksums in themselves, systemd and Docker load the rest."""

PROGRAMS = ("usr/sbin/dmsetup",)
"""A program that busybox does not have. It sets up the verified root."""

_FOLDERS = ("bin", "dev", "modules", "new", "proc", "run", "sys")
_CONSOLE = (5, 1)
_SIGNATURE_MAGIC = b"~Module signature appended~\n"
_SIGNATURE_BYTES = 12
_S_IFDIR, _S_IFCHR, _S_IFREG = 0o040000, 0o020000, 0o100000


def build_initrd(
    tree: Path,
    modules: Iterable[str] = (*BOOT_MODULES, *EXPECTED_MODULES),
    programs: Iterable[str] = PROGRAMS,
) -> Path:
    """The initrd for the tree's kernel, in the cache under the hash of its content."""
    archive = initrd_bytes(tree, tuple(modules), tuple(programs))
    path = cache_dir() / "initrds" / f"{hashlib.sha256(archive).hexdigest()[:16]}.cpio"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_suffix(f".{os.getpid()}")
        building.write_bytes(archive)
        building.rename(path)
    return path


def kernel_of(tree: Path) -> Path:
    """The tree's newest kernel, a bzImage."""
    return tree / "boot" / f"vmlinuz-{kernel_release(tree)}"


def kernel_release(tree: Path) -> str:
    """The output of `uname -r` with that kernel."""
    found = sorted((tree / "boot").glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UnusableInput(f"{tree} has no kernel")
    return found[-1].name.removeprefix("vmlinuz-")


def initrd_bytes(tree: Path, modules: tuple[str, ...], programs: tuple[str, ...] = ()) -> bytes:
    """The initrd as bytes: a `newc` cpio archive, not compressed."""
    folder = tree / "usr/lib/modules" / kernel_release(tree)
    order = load_order(_dependencies(folder), _needed(folder, modules))
    contents = {
        name.rsplit("/", 1)[-1].removesuffix(".xz"): _kept_module(
            folder / name, (folder / name).stat().st_mtime_ns
        )
        for name in order
    }
    files = {
        "bin/busybox": (0o755, (tree / "usr/bin/busybox").read_bytes()),
        "init": (0o755, (resources.files("sealift.machine") / "init.sh").read_bytes()),
        **dict(_program(tree, name) for name in programs),
        **{
            name: (0o755, (tree / "usr" / name).read_bytes())
            for name in sorted({library for program in programs for library in _libraries(tree, program)})
        },
        "acpi/DSDT": (0o644, dsdt()),
        "modules/order": (0o644, "".join(f"{name}\n" for name in contents).encode()),
        **{f"modules/{name}": (0o644, content) for name, content in contents.items()},
    }
    return cpio(files)


def _program(tree: Path, name: str) -> tuple[str, tuple[int, bytes]]:
    return f"bin/{name.rsplit('/', 1)[-1]}", (0o755, (tree / name).read_bytes())


def _libraries(tree: Path, program: str) -> list[str]:
    """The libraries of a program of the tree, according to its own loader. Names are below `/` or `/usr`."""
    listed = run(["chroot", tree, "/usr/bin/ldd", f"/{program}"]).stdout
    return re.findall(r"(?<=\s/)(lib\S*)(?= \()", listed)


def load_order(dependencies: Mapping[str, list[str]], wanted: Iterable[str]) -> list[str]:
    """Module files (as in modules.dep), in an order in which each comes after its dependencies.

    Raises UnusableInput for a module that the kernel does not have as a file.
    """
    by_name = {_name(path): path for path in dependencies}
    order: list[str] = []

    def add(path: str) -> None:
        for needed in dependencies[path]:
            add(needed)
        if path not in order:
            order.append(path)

    for name in wanted:
        if name not in by_name:
            raise UnusableInput(f"this kernel has no module {name}")
        add(by_name[name])
    return order


def cpio(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An archive as `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux describes it.

    `files` maps names to mode and content. Owner root, time 0: the same input gives the same bytes.
    """
    folders = {*_FOLDERS, *(str(folder) for name in files for folder in PurePosixPath(name).parents[:-1])}
    members = [
        *((folder, _S_IFDIR | 0o755, b"", (0, 0)) for folder in sorted(folders)),
        (
            "dev/console",
            _S_IFCHR | 0o600,
            b"",
            _CONSOLE,
        ),  # opened as the init's output before devtmpfs is mounted
        *((name, _S_IFREG | mode, content, (0, 0)) for name, (mode, content) in sorted(files.items())),
        ("TRAILER!!!", 0, b"", (0, 0)),
    ]
    return b"".join(
        part
        for inode, (name, mode, content, device) in enumerate(members, 1)
        for part in _member(inode, name, mode, content, device)
    )


def _member(inode: int, name: str, mode: int, content: bytes, device: tuple[int, int]) -> Iterator[bytes]:
    encoded = name.encode() + b"\0"
    links = 2 if mode & _S_IFDIR else 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    yield header + bytes(-len(header) % 4)
    yield content + bytes(-len(content) % 4)


def _dependencies(folder: Path) -> dict[str, list[str]]:
    lines = (folder / "modules.dep").read_text(encoding="utf-8").splitlines()
    split = (line.partition(":") for line in lines)
    return {module: needed.split() for module, _, needed in split}


def _needed(folder: Path, modules: Iterable[str]) -> list[str]:
    """Those that are not built in, and not missing from a kernel that does without."""
    files = {_name(path) for path in _dependencies(folder)}
    listed = folder / "modules.builtin"
    built_in = (
        {_name(line) for line in listed.read_text(encoding="utf-8").splitlines()}
        if listed.exists()
        else set()
    )
    return [name for name in modules if name in files or (name not in built_in and name not in MAY_LACK)]


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".", 1)[0].replace("-", "_")


@lru_cache(maxsize=128)
def _kept_module(path: Path, changed_ns: int) -> bytes:  # noqa: ARG001 - it makes a changed file another one
    # To decompress them is half of the time that an image takes, and a lab makes one image for each of its VMs.
    return module_bytes(path)


def module_bytes(path: Path) -> bytes:
    """A kernel module without compression and signature.

    The kernel would check the signature (ECDSA, and SHA-256 over the file) at each load, which takes a tenth of a
    second under emulation. Debian's kernel also loads unsigned modules, and these come from a root or an initrd that is
    measured as a whole. Format: Linux' include/linux/module_signature.h.
    """
    content = path.read_bytes()
    if path.suffix == ".xz":
        content = lzma.decompress(content)
    if not content.endswith(_SIGNATURE_MAGIC):
        return content
    end = len(content) - len(_SIGNATURE_MAGIC)
    length = int.from_bytes(content[end - 4 : end], "big")
    return content[: end - _SIGNATURE_BYTES - length]
