"""The manifest of an image, which the programs read that build, boot and measure it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.files import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("firmware", "kernel", "initrd", "root")
"""An image's files, by their names in its folder."""

MANIFEST = "manifest.json"
LIMIT = 64 * 1024


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`: the command line, and size and SHA-256 (hexadecimal) of each file."""

    append: str
    sha256: dict[str, str]
    size_bytes: dict[str, int]


def read_manifest(image: Path, called: str | None = None) -> Manifest:
    """Read an image's manifest. UnusableInput names the image by `called`, or by its folder."""
    try:
        content = json.loads(read_bounded(image / MANIFEST, LIMIT))
        append = content["append"]
        manifest = Manifest(
            append=str(append),
            sha256={name: str(content["sha256"][name]).lower() for name in FILES},
            size_bytes={name: int(content["size_bytes"][name]) for name in FILES},
        )
        named = [content[name] for name in FILES]
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise UnusableInput(
            f"{called or image} has no usable {MANIFEST}: {error}", remedy="Build the image again"
        ) from error
    if named != list(FILES):
        raise UnusableInput(f"{called or image} has files with other names", remedy="Build the image again")
    if not isinstance(append, str) or "\0" in append:
        raise UnusableInput(f"{called or image} has no command line", remedy="Build the image again")
    return manifest
