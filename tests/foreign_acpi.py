"""An ACPI table whose code says that it ran, as a provider might add one to a VM's."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PORT = 0xE9
_CODE = (
    # OperationRegion (EVIL, SystemIO, 0xE9, 1); SystemMemory instead of SystemIO would reach the kernel's memory.
    b"\x5b\x80EVIL\x01\x0a\xe9\x01"
    # Field (EVIL, ByteAcc) { BYT_, 8 }
    b"\x5b\x81\x0bEVIL\x01BYT_\x08"
    # Store (0x21, BYT_), run when the table is loaded
    b"\x70\x0a\x21BYT_"
)
RAN = b"!"


def foreign_table(folder: Path) -> tuple[str, ...]:
    """QEMU's arguments for that table, and for a port whose bytes come to `ran(folder)`."""
    header = struct.pack(
        "<4sIBB6s8sI4sI", b"SSDT", 36 + len(_CODE), 2, 0, b"EVIL  ", b"EVILTABL", 1, b"EVIL", 1
    )
    (folder / "ssdt.aml").write_bytes(header + _CODE)
    return (
        *("-acpitable", f"file={folder}/ssdt.aml"),
        *("-chardev", f"file,id=foreign,path={folder}/foreign"),
        *("-device", f"isa-debugcon,iobase={_PORT:#x},chardev=foreign"),
    )


def ran(folder: Path) -> bytes:
    """What the table's code has written since QEMU was started."""
    return (folder / "foreign").read_bytes()
