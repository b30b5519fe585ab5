"""The hash tree with which Linux' dm-verity checks the root disk: a VM reads only what was measured.

Format: Documentation/admin-guide/device-mapper/verity.rst of Linux, hash type 1, without a superblock. All
parameters are on the measured command line, so none of them is read from the disk itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096
SALT = hashlib.sha256(b"sealift root disk").digest()
"""A constant. It makes hashes that were computed for other disks useless, and is not secret."""

_TEXT = re.compile(r"([0-9a-f]{64}),([0-9a-f]{64}),([1-9][0-9]{0,11})")


@dataclass(frozen=True)
class Verity:
    """The parameters of a verified disk: root hash and salt (32 bytes each), and the start of the hash tree.

    `data_blocks` counts blocks of 4096 bytes; the tree follows them in the same file.
    """

    root_hash: bytes
    salt: bytes
    data_blocks: int

    def __str__(self) -> str:
        """As on the command line, after `sealift.root=`."""
        return f"{self.root_hash.hex()},{self.salt.hex()},{self.data_blocks}"


def parse_verity(text: str) -> Verity:
    """The reverse of `str`. Raises UnusableInput."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise UnusableInput(
            f"{text[:200]!r} does not describe a verified disk", remedy="Build the image again"
        )
    return Verity(bytes.fromhex(found[1]), bytes.fromhex(found[2]), int(found[3]))


def append_hash_tree(disk: Path) -> Verity:
    """Append the hash tree to the content of a disk. It takes about 3 s for a gigabyte."""
    with disk.open("r+b") as file:
        data_blocks, rest = divmod(file.seek(0, os.SEEK_END), BLOCK)
        if rest or data_blocks < 2:
            raise UnusableInput(f"{disk} is not made of two or more whole blocks of {BLOCK} bytes")
        levels = _levels(file)
        # The level next to the root comes first on the disk.
        for level in reversed(levels[:-1]):
            file.write(level)
    return Verity(levels[-1][: hashlib.sha256().digest_size], SALT, data_blocks)


def write_beside(disk: Path, verity: Verity) -> None:
    """Save a disk's parameters, and the hash of all its bytes, in a file of the same name."""
    with disk.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _beside(disk).write_text(json.dumps({"verity": str(verity), "sha256": digest}) + "\n", encoding="ascii")


def read_beside(disk: Path) -> tuple[Verity, str]:
    """The parameters and the SHA-256 (hexadecimal) that `write_beside` saved."""
    kept = json.loads(_beside(disk).read_text(encoding="ascii"))
    return parse_verity(kept["verity"]), kept["sha256"]


def has_beside(disk: Path) -> bool:
    """Whether that file exists."""
    return _beside(disk).is_file()


def _beside(disk: Path) -> Path:
    return disk.with_suffix(".verity")


def _levels(file: BinaryIO) -> list[bytes]:
    """All levels of hashes, from those of the data to the root hash, which is last."""
    salted = hashlib.sha256(SALT)

    def digest(block: bytes) -> bytes:
        state = salted.copy()
        state.update(block)
        return state.digest()

    file.seek(0)
    levels = [_padded(b"".join(map(digest, iter(lambda: file.read(BLOCK), b""))))]
    while True:
        level = levels[-1]
        blocks = (level[at : at + BLOCK] for at in range(0, len(level), BLOCK))
        hashes = b"".join(map(digest, blocks))
        if len(level) == BLOCK:
            return [*levels, hashes]
        levels.append(_padded(hashes))


def _padded(hashes: bytes) -> bytes:
    return hashes + bytes(-len(hashes) % BLOCK)
