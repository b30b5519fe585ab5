"""The launch session of legacy SEV, 128 bytes: it carries the transport keys from the owner to the secure processor.

SEV API, LAUNCH_START, table "Session data buffer":
nonce 16 ‖ wrapped TEK‖TIK 32 ‖ iv 16 ‖ HMAC(kik, wrapped) 32 ‖ HMAC(TIK, LE32 policy) 32.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from sealift.evidence.formats.layout import sized

SIZE = 128
KEY_BYTES = 16
_LAYOUT = struct.Struct("<16s32s16s32s32s")


@dataclass(frozen=True, slots=True)
class TransportKeys:
    """TEK (encrypts secrets) and TIK (makes MACs), 16 bytes each. Never shown by repr."""

    tek: bytes = field(repr=False)
    tik: bytes = field(repr=False)

    def __post_init__(self) -> None:
        sized(self.tek, KEY_BYTES, "a TEK")
        sized(self.tik, KEY_BYTES, "a TIK")


@dataclass(frozen=True, slots=True)
class Session:
    """The fields of the 128 bytes. None of them is secret."""

    nonce: bytes
    wrapped_keys: bytes
    wrap_iv: bytes
    wrap_mac: bytes
    policy_mac: bytes

    def pack(self) -> bytes:
        """The 128 bytes for LAUNCH_START."""
        return _LAYOUT.pack(self.nonce, self.wrapped_keys, self.wrap_iv, self.wrap_mac, self.policy_mac)


def parse_session(data: bytes) -> Session:
    """Read 128 bytes."""
    return Session(*_LAYOUT.unpack(sized(data, SIZE, "a launch session")))
