"""An image at the provider: a folder with a manifest and its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.files import hash_file
from sealift.machine.manifest import FILES, read_manifest
from sealift.provider.settings import checked_name

if TYPE_CHECKING:
    from pathlib import Path

_MEASURED = ("firmware", "kernel", "initrd")


@dataclass(frozen=True)
class Image:
    """The files that a VM boots. `append` is the kernel's whole command line."""

    firmware: Path
    kernel: Path
    initrd: Path
    root: Path
    append: str


def read_image(images: Path, name: str) -> Image:
    """The image of that name. The hashes of its small files are compared with the manifest, which takes 0.1 s.

    The root disk is not hashed: its verity root hash is on the command line, and the guest's kernel checks every
    block that it reads. UnusableInput names a file that is missing or damaged.
    """
    folder = images / checked_name(name, "the image's name")
    if not folder.is_dir():
        raise UnusableInput(f"there is no image {name!r}", remedy="Copy it to the provider's images")
    manifest = read_manifest(folder, f"the image {name!r}")
    files = {key: folder / key for key in FILES}
    for key in _MEASURED:
        if hash_file(files[key]).hex() != manifest.sha256[key]:
            raise UnusableInput(f"the {key} of the image {name!r} is damaged", remedy="Copy the image again")
    if not files["root"].is_file():
        raise UnusableInput(f"the image {name!r} has no root disk", remedy="Copy the image again")
    return Image(**files, append=manifest.append)
