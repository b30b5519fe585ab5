"""The program that a measured VM's firmware starts: a UEFI program with ACPI tables and the kernel that it starts.

The same tree gives the same bytes. QEMU accepts it as a kernel, because it has the setup header of the kernel inside
at the same offset. Formats: Microsoft's PE specification; Linux' Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from importlib import resources
from pathlib import Path

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import PAGE_BYTES
from sealift.machine.acpi import BLOCK_BYTES, table_block
from sealift.machine.initrd import kernel_of
from sealift.paths import cache_dir
from sealift.process import run

_SETUP_HEADER = slice(0x1F1, 0x280)
_SETUP_MAGIC_AT, _SETUP_MAGIC = slice(0x202, 0x206), b"HdrS"
_PAYLOAD_AT = PAGE_BYTES
_PAYLOAD_BYTES = 4 * PAGE_BYTES  # `loader.c` finds it at this distance
_CODE_AT = _PAYLOAD_AT + _PAYLOAD_BYTES
_EXECUTABLE, _READABLE, _DATA, _CODE = 0x20000000, 0x40000000, 0x40, 0x20
_UEFI_APPLICATION = 10
_IMAGE_FLAGS = (
    0x0002 | 0x0004 | 0x0020
)  # executable, no line numbers, addresses above 2 GiB; it can be loaded anywhere


def build_loader(tree: Path) -> Path:
    """The program with the tree's kernel, in the cache under the hash of its content."""
    content = loader_bytes(kernel_of(tree).read_bytes(), compiled(tree))
    path = cache_dir() / "loaders" / f"{hashlib.sha256(content).hexdigest()[:16]}.efi"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_suffix(f".{os.getpid()}")
        building.write_bytes(content)
        building.rename(path)
    return path


def compiled(tree: Path) -> bytes:
    """`loader.c` as a flat program that begins with its first instruction, compiled by the tree's compiler."""
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    with (
        resources.as_file(resources.files("sealift.machine") / "loader.c") as source,
        tempfile.TemporaryDirectory() as folder,
    ):
        program = Path(folder) / "program"
        run(
            [
                # With the tree's own loader and libraries this works on any machine and without root.
                *(tree / "lib64/ld-linux-x86-64.so.2", "--library-path", libraries, tree / "usr/bin/tcc"),
                *(f"-B{libraries}/tcc", "-static", "-nostdlib", "-nostdinc", "-Wall", "-Werror"),
                *("-Wl,--oformat=binary", f"-Wl,-Ttext={_CODE_AT:#x}", "-Wl,-section-alignment=16"),
                *("-o", program, source),
            ]
        )
        return program.read_bytes()


def loader_bytes(kernel: bytes, code: bytes) -> bytes:
    """The program in memory. `kernel` is a bzImage with an EFI stub. Raises UnusableInput for anything else."""
    if kernel[:2] != b"MZ" or kernel[_SETUP_MAGIC_AT] != _SETUP_MAGIC:
        raise UnusableInput("the tree's kernel cannot be started by UEFI", remedy="Build the tree again")
    kernel_at = _CODE_AT + _up(len(code))
    payload = struct.pack("<QQQ", kernel_at - _PAYLOAD_AT, len(kernel), BLOCK_BYTES) + table_block()
    sections = (
        (b".tables", _PAYLOAD_AT, payload, _READABLE | _DATA),
        (b".text", _CODE_AT, code, _READABLE | _EXECUTABLE | _CODE),
        (b".linux", kernel_at, kernel, _READABLE | _DATA),
    )
    # Three sections' headers end before the setup header begins.
    headers = bytearray(_headers(sections, code).ljust(PAGE_BYTES, b"\0"))
    headers[_SETUP_HEADER] = kernel[_SETUP_HEADER]
    return bytes(headers) + b"".join(
        content + bytes(_up(len(content)) - len(content)) for _, _, content, _ in sections
    )


def _headers(sections: tuple[tuple[bytes, int, bytes, int], ...], code: bytes) -> bytes:
    """DOS header, PE header, optional header and section table. Offsets in the file and in memory are the same."""
    end = sections[-1][1] + _up(len(sections[-1][2]))
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII",
        *(0x20B, 0, 0, _up(len(code)), end - _CODE_AT, 0, _CODE_AT, _CODE_AT),
        *(0, PAGE_BYTES, PAGE_BYTES, 0, 0, 0, 0, 0, 0, 0),  # base, alignments, versions
        *(end, PAGE_BYTES, 0, _UEFI_APPLICATION, 0),
        *(0, 0, 0, 0, 0, 6),  # stack, heap, flags, directories
    ) + bytes(6 * 8)
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, len(optional), _IMAGE_FLAGS)
    table = b"".join(
        struct.pack("<8sIIIIIIHHI", name, len(content), at, _up(len(content)), at, 0, 0, 0, 0, flags)
        for name, at, content, flags in sections
    )
    return dos + coff + optional + table


def _up(count: int) -> int:
    return -(-count // PAGE_BYTES) * PAGE_BYTES
