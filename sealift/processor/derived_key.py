"""A key that a guest derives from its chip: payloads of SNP_GET_DERIVED_KEY.

Linux, include/uapi/linux/sev-guest.h (struct snp_derived_key_req, _resp); SNP ABI, tables "MSG_KEY_REQ" and
"MSG_KEY_RSP". AMD has not published how firmware mixes the fields. The emulated key has the same properties (it
changes with the chip, the root key and each selected field), but another value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import sized
from sealift.evidence.launch.session import derive_key

if TYPE_CHECKING:
    from sealift.evidence.formats.id_block import IdBlock

IOCTL_GET_DERIVED_KEY = 0xC0205301
REQUEST_BYTES = 32
RESPONSE_BYTES = 64
KEY_BYTES = 32

_REQUEST = struct.Struct("<IIQIIQ")
_RESPONSE_HEAD = struct.Struct("<I28x")


class KeyField(IntFlag):
    """The fields that are mixed into the key (GUEST_FIELD_SELECT)."""

    POLICY = 1 << 0
    IMAGE_ID = 1 << 1
    FAMILY_ID = 1 << 2
    MEASUREMENT = 1 << 3
    GUEST_SVN = 1 << 4
    TCB = 1 << 5


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """The input of the derivation; `fields` has KeyField bits. `root` 0: the VCEK, 1: the VMRK.

    `guest_svn` and `tcb` are at most the guest's.
    """

    fields: int = 0
    root: int = 0
    vmpl: int = 0
    guest_svn: int = 0
    tcb: int = 0

    def pack(self) -> bytes:
        """The 32 bytes of struct snp_derived_key_req."""
        return _REQUEST.pack(self.root, 0, self.fields, self.vmpl, self.guest_svn, self.tcb)


def parse_key_request(data: bytes) -> KeyRequest:
    """Read 32 bytes, as an emulated secure processor does."""
    root, reserved, fields, vmpl, svn, tcb = _REQUEST.unpack(sized(data, REQUEST_BYTES, "a key request"))
    if root > 1 or reserved or vmpl > 3 or fields & ~int(sum(KeyField)):
        raise UnusableInput("a key request with an impossible field", remedy="See the SNP ABI's MSG_KEY_REQ")
    return KeyRequest(fields, root, vmpl, svn, tcb)


def pack_key_response(key: bytes, status: int = 0) -> bytes:
    """The 64 bytes of struct snp_derived_key_resp."""
    return (_RESPONSE_HEAD.pack(status) + key).ljust(RESPONSE_BYTES, b"\0")


def parse_key_response(data: bytes) -> bytes:
    """The key's 32 bytes. A status other than 0 is an error."""
    (status,) = _RESPONSE_HEAD.unpack_from(sized(data, RESPONSE_BYTES, "a key response"))
    if status:
        raise UnusableInput(f"the secure processor answered with status {status:#x} and no key")
    return bytes(data[_RESPONSE_HEAD.size : _RESPONSE_HEAD.size + KEY_BYTES])


def derive_guest_key(
    chip_secret: bytes, request: KeyRequest, block: IdBlock, *, policy: int, measurement: bytes
) -> bytes:
    """The emulated key, 32 bytes."""
    mixed = {
        KeyField.POLICY: struct.pack("<Q", policy),
        KeyField.IMAGE_ID: block.image_id,
        KeyField.FAMILY_ID: block.family_id,
        KeyField.MEASUREMENT: measurement,
        KeyField.GUEST_SVN: struct.pack("<I", request.guest_svn),
        KeyField.TCB: struct.pack("<Q", request.tcb),
    }
    context = request.pack()[:20] + b"".join(
        value if request.fields & name else bytes(len(value)) for name, value in mixed.items()
    )
    return derive_key(chip_secret, b"emulated derived key", context, KEY_BYTES)
