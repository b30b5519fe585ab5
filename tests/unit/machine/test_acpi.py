"""The tables that an image brings say what a machine has, and hold no code that runs."""

from __future__ import annotations

import shutil
import struct
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from sealift.machine.acpi import (
    BLOCK_BYTES,
    DSDT_AT,
    FACS_AT,
    FADT_AT,
    MADT_AT,
    XSDT_AT,
    dsdt,
    table_block,
)
from sealift.provider.orders import VCPU_LIMIT

if TYPE_CHECKING:
    from pathlib import Path

TABLES = {XSDT_AT: b"XSDT", FADT_AT: b"FACP", FACS_AT: b"FACS", DSDT_AT: b"DSDT", MADT_AT: b"APIC"}
METHOD = b"\x14"
REGION = b"\x5b\x80"


def table(at: int) -> bytes:
    block = table_block()
    return block[at : at + struct.unpack_from("<I", block, at + 4)[0]]


def test_each_table_is_where_the_loader_looks_for_it() -> None:
    block = table_block()
    assert block.startswith(b"RSD PTR ")
    assert struct.unpack_from("<Q", block, 24)[0] == XSDT_AT
    assert {at: block[at : at + 4] for at in TABLES} == TABLES
    assert struct.unpack_from("<QQ", table(XSDT_AT), 36) == (FADT_AT, MADT_AT)
    assert struct.unpack_from("<II", table(FADT_AT), 36) == (FACS_AT, DSDT_AT)
    assert struct.unpack_from("<QQ", table(FADT_AT), 132) == (FACS_AT, DSDT_AT)


def test_none_reaches_into_the_next_and_the_processors_fit_behind_the_last() -> None:
    starts = [*sorted(TABLES), BLOCK_BYTES]
    for at, behind in pairwise(starts):
        assert at + len(table(at)) <= behind
    assert MADT_AT + len(table(MADT_AT)) + 16 * VCPU_LIMIT <= BLOCK_BYTES


def test_the_only_aml_names_a_pci_root_and_how_to_switch_off() -> None:
    assert sum(dsdt()) % 256 == 0
    assert REGION not in dsdt()
    assert METHOD not in dsdt()[36:]
    assert b"PCI0" in dsdt()
    assert dsdt().endswith(b"_S5_\x12\x06\x04\0\0\0\0")


@pytest.mark.oracle
def test_the_reference_disassembler_reads_it(tmp_path: Path) -> None:
    if shutil.which("iasl") is None:
        pytest.skip("iasl (acpica-tools) is not installed")
    (tmp_path / "dsdt.aml").write_bytes(dsdt())
    subprocess.run(["iasl", "-d", "dsdt.aml"], cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "dsdt.dsl").read_text()
    assert 'Name (_HID, EisaId ("PNP0A08")' in text
    assert "Name (_S5, Package (0x04)" in text
    assert "OperationRegion" not in text
    assert "Method" not in text
