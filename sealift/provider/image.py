"""An image as the provider has it: a folder with a manifest and the files that it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.files import hash_file, read_bounded
from sealift.provider.settings import checked_name

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
_MANIFEST_LIMIT = 64 * 1024
_MEASURED = ("firmware", "kernel", "initrd")


@dataclass(frozen=True)
class Image:
    """What a VM boots. `append` is the kernel's whole command line."""

    firmware: Path
    kernel: Path
    initrd: Path
    root: Path
    append: str


def read_image(images: Path, name: str) -> Image:
    """The image of that name. Its small files must hash to what the manifest says, which costs 0.1 s.

    The root disk is not hashed: its verity root hash is in the command line, and what is read is checked
    by the guest's kernel. UnusableInput names what is missing or damaged.
    """
    folder = images / checked_name(name, "the image's name")
    if not folder.is_dir():
        raise UnusableInput(f"there is no image {name!r}", remedy="Copy it to the provider's images")
    try:
        manifest = json.loads(read_bounded(folder / MANIFEST, _MANIFEST_LIMIT))
        files = {key: folder / _file_name(manifest[key]) for key in (*_MEASURED, "root")}
        append, hashes = manifest["append"], manifest["sha256"]
        wanted = {key: str(hashes[key]) for key in _MEASURED}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnusableInput(
            f"the image {name!r} has no usable {MANIFEST}: {error}", remedy="Build the image again"
        ) from error
    if not isinstance(append, str) or "\0" in append:
        raise UnusableInput(f"the image {name!r} has no command line", remedy="Build the image again")
    for key, digest in wanted.items():
        if hash_file(files[key]).hex() != digest.lower():
            raise UnusableInput(f"the {key} of the image {name!r} is damaged", remedy="Copy the image again")
    if not files["root"].is_file():
        raise UnusableInput(f"the image {name!r} has no root disk", remedy="Copy the image again")
    return Image(**files, append=append)


def _file_name(name: object) -> str:
    if not isinstance(name, str) or "/" in name or "\0" in name or name in {"", ".", ".."}:
        message = "a file's name is none"
        raise ValueError(message)
    return name
