"""The ACPI tables of a measured VM. They are part of the image, so that its kernel does not run the provider's.

AML, the code in ACPI tables, runs in the guest's kernel and can access all of its memory. QEMU's tables come from the
provider and are not measured. So a program that is measured with the kernel gives it these tables instead (`loader.c`).
They describe the hardware of every q35 machine, and their only code is constants. The list of processors comes from the
firmware. PCI is found without tables (`pci=nocrs` on the command line).

Layouts: ACPI specification 6.5, chapter 5.2. Ports: QEMU's q35 as OVMF sets it up.
"""

from __future__ import annotations

import struct

from sealift.evidence.formats.layout import PAGE_BYTES

BLOCK_BYTES = 3 * PAGE_BYTES
"""The tables and the entries after them: up to 16 bytes for each processor."""
RSDP_AT, XSDT_AT, FADT_AT, FACS_AT, DSDT_AT, MADT_AT = 0x000, 0x040, 0x100, 0x200, 0x240, 0x400
"""The offset of each table in the block. `loader.c` has the same numbers."""

_OEM = b"SEALFT"
_OEM_TABLE = b"SEALIFT "
_CREATOR = b"SLFT"
_HEADER_BYTES = 36
_FADT_BYTES = 244
_PM_EVENTS, _PM_CONTROL, _PM_TIMER, _RESET = 0x600, 0x604, 0x608, 0xCF9
_SCI = 9
_SMI_COMMAND, _ACPI_ON, _ACPI_OFF = 0xB2, 2, 3
_RESET_VALUE = 0x0F
_CENTURY = 0x32  # of the clock's registers
_WBINVD, _NO_SLEEP_BUTTON, _CAN_RESET = 1 << 0, 1 << 5, 1 << 10
_LOCAL_APIC, _IO_APIC = 0xFEE00000, 0xFEC00000
_LEVEL_HIGH = 0x0D


def table_block() -> bytes:
    """The tables in a row, as if at address 0. `loader.c` adds the address, processors and checksums."""
    block = bytearray(BLOCK_BYTES)
    # A checksum over 20 bytes, then a checksum over all 36.
    rsdp = struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM, 2, 0, 36, XSDT_AT, 0)
    for at, table in (
        (RSDP_AT, rsdp),
        (XSDT_AT, _table(b"XSDT", 1, struct.pack("<QQ", FADT_AT, MADT_AT))),
        (FADT_AT, _fadt()),
        (FACS_AT, struct.pack("<4sI24xB31x", b"FACS", 64, 1)),
        (DSDT_AT, dsdt()),
        (MADT_AT, _madt()),
    ):
        block[at : at + len(table)] = table
    return bytes(block)


def dsdt() -> bytes:
    """The only table with AML: a PCI root without a method, and the values that switch the machine off."""
    root = _named(b"_HID", _eisa_id("PNP0A08")) + _named(b"_CID", _eisa_id("PNP0A03"))
    device = b"\x5b\x82" + _packed(b"PCI0" + root)
    scope = b"\x10" + _packed(b"_SB_" + device)
    off = _named(b"_S5_", b"\x12" + _packed(b"\x04\x00\x00\x00\x00"))
    return _with_checksum(_table(b"DSDT", 2, scope + off))


def _fadt() -> bytes:
    """It has no general-purpose events, since no AML could handle one. The power button is a fixed event."""
    body = bytearray(_FADT_BYTES - _HEADER_BYTES)

    def put(at: int, layout: str, *values: int) -> None:
        struct.pack_into("<" + layout, body, at - _HEADER_BYTES, *values)

    put(36, "II", FACS_AT, DSDT_AT)
    put(46, "HIBB", _SCI, _SMI_COMMAND, _ACPI_ON, _ACPI_OFF)
    put(56, "I4xI", _PM_EVENTS, _PM_CONTROL)
    put(76, "I", _PM_TIMER)
    put(88, "BBxB", 4, 2, 4)
    put(96, "HH", 0xFFF, 0xFFF)  # no deeper sleep state than C1
    put(108, "B", _CENTURY)
    put(112, "I", _WBINVD | _NO_SLEEP_BUTTON | _CAN_RESET)
    put(116, "BBBBQB", *_port(_RESET, 8), _RESET_VALUE)
    put(132, "QQ", FACS_AT, DSDT_AT)
    put(148, "BBBBQ", *_port(_PM_EVENTS, 32))
    put(172, "BBBBQ", *_port(_PM_CONTROL, 16))
    put(208, "BBBBQ", *_port(_PM_TIMER, 32))
    return _table(b"FACP", 3, bytes(body))


def _madt() -> bytes:
    """The interrupt controllers. The processors' entries follow after them."""
    entries = struct.pack("<BBBxII", 1, 12, 0, _IO_APIC, 0)
    for source, line, flags in ((0, 2, 0), *((each, each, _LEVEL_HIGH) for each in (5, _SCI, 10, 11))):
        entries += struct.pack("<BBBBIH", 2, 10, 0, source, line, flags)
    entries += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    return _table(b"APIC", 3, struct.pack("<II", _LOCAL_APIC, 1) + entries)


def _port(number: int, bits: int) -> tuple[int, int, int, int, int]:
    """A generic address: I/O space, width, offset, access size (1 byte, 2 words, 3 double words), number."""
    return 1, bits, 0, {8: 1, 16: 2, 32: 3}[bits], number


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    length = _HEADER_BYTES + len(body)
    return (
        struct.pack("<4sIBB6s8sI4sI", signature, length, revision, 0, _OEM, _OEM_TABLE, 1, _CREATOR, 1) + body
    )


def _with_checksum(table: bytes) -> bytes:
    return table[:9] + bytes([-sum(table) & 0xFF]) + table[10:]


def _named(name: bytes, value: bytes) -> bytes:
    return b"\x08" + name + value


def _eisa_id(name: str) -> bytes:
    """A name as a double word: three letters with 5 bits each, four hexadecimal digits (19.6.36, EISAID)."""
    letters = [ord(letter) - 0x40 for letter in name[:3]]
    packed = letters[0] << 10 | letters[1] << 5 | letters[2]
    return b"\x0c" + packed.to_bytes(2, "big") + bytes.fromhex(name[3:])


def _packed(content: bytes) -> bytes:
    """The content after its length, which includes itself (20.2.4, PkgLength; one byte)."""
    length = len(content) + 1
    if length > 0x3F:
        raise ValueError("longer than a length of one byte allows")
    return bytes([length]) + content
