"""The id authentication block, made by the owner: the id key signs the id block, the author key signs the id key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.evidence.formats.id_block import ALGORITHM_ECDSA_P384_SHA384, ALGORITHM_NONE, BLOCK_BYTES, IdAuth
from sealift.evidence.formats.layout import sized
from sealift.evidence.formats.signature import KEY_BYTES, SIGNATURE_BYTES, encode_key, sign_ecdsa

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec


def authenticate(
    block: bytes, id_key: ec.EllipticCurvePrivateKey, author_key: ec.EllipticCurvePrivateKey | None = None
) -> IdAuth:
    """Sign an id block (96 bytes), and sign the id key with the author key if there is one."""
    sized(block, BLOCK_BYTES, "an id block")
    key = encode_key(id_key.public_key())
    author = author_key is not None
    return IdAuth(
        id_algorithm=ALGORITHM_ECDSA_P384_SHA384,
        author_algorithm=ALGORITHM_ECDSA_P384_SHA384 if author else ALGORITHM_NONE,
        block_signature=sign_ecdsa(id_key, block, "sha384").ljust(SIGNATURE_BYTES, b"\0"),
        id_key=key,
        id_key_signature=(sign_ecdsa(author_key, key, "sha384") if author_key else b"").ljust(
            SIGNATURE_BYTES, b"\0"
        ),
        author_key=encode_key(author_key.public_key()) if author_key else bytes(KEY_BYTES),
    )
