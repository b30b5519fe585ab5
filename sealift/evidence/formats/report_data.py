"""The report data of a guest: a hash that binds the report to two nonces and two public keys.

SHA-512 over a domain tag and four items, each with its length before it. So two different lists of items never
give the same bytes. The hash has 64 bytes and fills REPORT_DATA.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from sealift.errors import UnusableInput

DOMAIN = b"sealift report data v1"
NONCE_BYTES = 32
SIZE = 64

_ITEM_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Binding:
    """The items, in order. Nonces: 32 bytes each. Keys: their usual text form, as bytes."""

    owner_nonce: bytes
    guest_nonce: bytes
    ssh_host_key: bytes
    wireguard_key: bytes

    def digest(self) -> bytes:
        """The 64 bytes of report data."""
        if len(self.owner_nonce) != NONCE_BYTES or len(self.guest_nonce) != NONCE_BYTES:
            raise UnusableInput("both nonces have 32 bytes", remedy="Draw them with secrets.token_bytes(32)")
        items = (DOMAIN, self.owner_nonce, self.guest_nonce, self.ssh_host_key, self.wireguard_key)
        if any(not item or len(item) > _ITEM_LIMIT for item in items):
            raise UnusableInput("a key to be bound is empty or larger than 64 KiB", remedy="Bind public keys")
        hashed = hashlib.sha512()
        for item in items:
            hashed.update(struct.pack("<I", len(item)) + item)
        return hashed.digest()

    def bound_in(self, report_data: bytes) -> bool:
        """Whether this report data is the binding. Constant time."""
        return hmac.compare_digest(self.digest(), report_data)


def padded(data: bytes) -> bytes:
    """Report data of up to 64 bytes, padded with zeros at its end, as the kernel's tools do."""
    if len(data) > SIZE:
        raise UnusableInput(f"report data has at most 64 bytes, and this has {len(data)}", remedy="Hash it")
    return data.ljust(SIZE, b"\0")
