"""The loader carries the tree's kernel unchanged, in a form that both UEFI and QEMU take for a kernel."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from sealift.errors import UnusableInput
from sealift.machine.acpi import table_block
from sealift.machine.initrd import kernel_of
from sealift.machine.loader import compiled, loader_bytes
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import tree_path

if TYPE_CHECKING:
    from pathlib import Path

CODE = b"\xc3" * 5000
KERNEL = b"MZ" + bytes(0x1EF) + b"\x27" + bytes(16) + b"HdrS\x0f\x02" + bytes(range(256)) * 40


@pytest.fixture(scope="module")
def tree() -> Path:
    tree = tree_path(RECIPE)
    if not (tree / "usr/bin/tcc").exists():
        pytest.skip("the Debian tree is not built: `sealift lab up` builds it")
    return tree


def sections(program: bytes) -> dict[str, tuple[int, bytes, int]]:
    """Name to place in memory, content and flags."""
    at = struct.unpack_from("<I", program, 60)[0]
    count, optional = struct.unpack_from("<H12xH", program, at + 6)
    found = {}
    for number in range(count):
        name, size, place, _, offset, flags = struct.unpack_from(
            "<8sIIII12xI", program, at + 24 + optional + 40 * number
        )
        found[name.rstrip(b"\0").decode()] = (place, program[offset : offset + size], flags)
    return found


def test_kernel_code_and_tables_are_in_it_unchanged() -> None:
    found = sections(loader_bytes(KERNEL, CODE))
    place, payload, _ = found[".tables"]
    assert found[".text"][0] == place + 0x4000
    assert found[".text"][1] == CODE
    kernel_at, kernel_bytes, block_bytes = struct.unpack_from("<QQQ", payload)
    assert payload[24:] == table_block()
    assert block_bytes == len(table_block())
    assert (place + kernel_at, KERNEL) == found[".linux"][:2]
    assert kernel_bytes == len(KERNEL)


def test_no_section_can_be_both_written_and_run() -> None:
    write, run = 0x80000000, 0x20000000
    assert [flags for _, _, flags in sections(loader_bytes(KERNEL, CODE)).values() if flags & write] == []
    assert [name for name, part in sections(loader_bytes(KERNEL, CODE)).items() if part[2] & run] == [".text"]


def test_it_has_the_kernels_own_setup_header() -> None:
    assert loader_bytes(KERNEL, CODE)[0x1F1:0x280] == KERNEL[0x1F1:0x280]


@pytest.mark.parametrize("kernel", [b"", b"MZ", KERNEL.replace(b"HdrS", b"hdrs"), b"ZM" + KERNEL[2:]])
def test_what_is_no_kernel_with_an_efi_stub_is_refused(kernel: bytes) -> None:
    with pytest.raises(UnusableInput, match="UEFI"):
        loader_bytes(kernel, CODE)


def test_the_same_tree_gives_the_same_bytes(tree: Path) -> None:
    kernel = kernel_of(tree).read_bytes()
    assert loader_bytes(kernel, compiled(tree)) == loader_bytes(kernel, compiled(tree))
    assert sections(loader_bytes(kernel, compiled(tree)))[".linux"][1] == kernel
