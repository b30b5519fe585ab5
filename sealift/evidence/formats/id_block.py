"""The id block, in which an owner names the expected guest, and the block that authenticates it.

SNP ABI, tables "ID Block" (96 bytes) and "ID Authentication Information" (4096 bytes). The id key signs
the id block; the author key, if there is one, signs the id key. Key digest: SHA-384 of the 404h bytes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from sealift.evidence.formats.layout import sized
from sealift.evidence.formats.signature import KEY_BYTES, SIGNATURE_BYTES

BLOCK_BYTES = 96
AUTH_BYTES = 4096
ALGORITHM_NONE = 0
ALGORITHM_ECDSA_P384_SHA384 = 1

_BLOCK = struct.Struct("<48s16s16sIIQ")
# At 0, 4, 40h, 240h, 680h and 880h.
_AUTH = struct.Struct(f"<II56x{SIGNATURE_BYTES}s{KEY_BYTES}s60x{SIGNATURE_BYTES}s{KEY_BYTES}s892x")


@dataclass(frozen=True, slots=True)
class IdBlock:
    """The guest that the owner expects. The firmware refuses to launch any other guest."""

    launch_digest: bytes
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    version: int = 1
    guest_svn: int = 0
    policy: int = 0x30000

    def pack(self) -> bytes:
        """The 96 bytes."""
        return _BLOCK.pack(
            sized(self.launch_digest, 48, "a launch digest"),
            sized(self.family_id, 16, "a family id"),
            sized(self.image_id, 16, "an image id"),
            self.version,
            self.guest_svn,
            self.policy,
        )


@dataclass(frozen=True, slots=True)
class IdAuth:
    """Signatures and keys as received: keys have 1028 bytes, signatures 512."""

    id_algorithm: int
    author_algorithm: int
    block_signature: bytes
    id_key: bytes
    id_key_signature: bytes
    author_key: bytes

    def pack(self) -> bytes:
        """The 4096 bytes."""
        return _AUTH.pack(
            self.id_algorithm,
            self.author_algorithm,
            self.block_signature,
            self.id_key,
            self.id_key_signature,
            self.author_key,
        )

    @property
    def id_key_digest(self) -> bytes:
        """The digest of the id key in the report, 48 bytes."""
        return hashlib.sha384(self.id_key).digest()

    @property
    def has_author(self) -> bool:
        """Whether there is an author key."""
        return any(self.author_key)

    @property
    def author_key_digest(self) -> bytes:
        """The digest of the author key in the report: 48 bytes, zeros without an author key."""
        return hashlib.sha384(self.author_key).digest() if self.has_author else bytes(48)


def parse_id_block(data: bytes) -> IdBlock:
    """Read 96 bytes."""
    return IdBlock(*_BLOCK.unpack(sized(data, BLOCK_BYTES, "an id block")))


def parse_id_auth(data: bytes) -> IdAuth:
    """Read 4096 bytes."""
    return IdAuth(*_AUTH.unpack(sized(data, AUTH_BYTES, "an id authentication block")))
