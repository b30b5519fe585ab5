"""The image that a measured VM boots: firmware, kernel, initrd, root and the kernel's whole command line.

An image is a folder, in the cache under the hash of its manifest. Files that do not depend on the owner are shared by
all images through hard links, and so are read-only. Everything that a VM's provider must not choose is on the command
line, which is measured: the root disk's hash, the only key that can log in, and the backend of the secure processor.
Nothing in an image is secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import shutil
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.files import hash_file, read_bounded
from sealift.machine.cache import only_builder, remove_folder
from sealift.machine.disk import build_disk
from sealift.machine.initrd import build_initrd
from sealift.machine.loader import build_loader
from sealift.machine.manifest import FILES, LIMIT, MANIFEST
from sealift.machine.qemu import COMMAND_LINE, EMULATED_COMMAND_LINE, security_words
from sealift.machine.verity import read_beside
from sealift.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sealift.machine.manifest import Manifest

FIRMWARE = "usr/share/ovmf/OVMF.amdsev.fd"

_SEALED = (
    # The console shows only the kernel's last messages, and accepts no input.
    "loglevel=1 systemd.show_status=no "
    # Otherwise systemd would accept users, keys and units from the firmware's tables, which the provider writes.
    "systemd.import_credentials=no systemd.dump_core=no "
    # The image's ACPI tables do not describe PCI (acpi.py): the kernel uses the addresses that the firmware has set.
    "pci=nocrs"
)
_OWNER_KEY = re.compile(
    r"(ssh-[a-z0-9-]{1,20}|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]{32,1200}={0,2})( .*)?"
)
_APPEND_LIMIT = 2047
"""Bytes without the final zero; COMMAND_LINE_SIZE of Linux on x86 is 2048."""


class GuestEvidence(StrEnum):
    """The attestation protocol that the guest uses."""

    SNP = "snp"
    SEV = "sev"


def build_image(
    tree: Path,
    files: Path,
    *,
    owner_key: str,
    evidence: GuestEvidence,
    emulated: bool = False,
    into: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Make an image. Returns its folder: in the cache, or the new folder `into`, with links to the cache if possible.

    `owner_key` is an SSH public key in a line, as in authorized_keys, without options. `emulated` is for emulated
    processors: the kernel then runs without mitigations of speculation. It takes well under a second if the cache has
    the tree's root disk. Making that disk needs root and half a minute.
    """
    command_line = _command_line(owner_key, evidence, security_words(tree), emulated=emulated)
    root = build_disk(tree, files, say=say)
    verity, root_digest = read_beside(root)
    parts = {
        "firmware": tree / FIRMWARE,
        "kernel": build_loader(tree),
        "initrd": build_initrd(tree),
        "root": root,
    }
    append = f"{command_line} sealift.root={verity}"
    if len(append) > _APPEND_LIMIT:
        raise UnusableInput(
            "the owner's key is too long for the kernel's command line", remedy="Use an ed25519 key"
        )
    hashes = {name: hash_file(path).hex() for name, path in parts.items() if name != "root"}
    manifest = {
        **{name: name for name in FILES},
        "append": append,
        "sha256": hashes | {"root": root_digest},
        "size_bytes": {name: path.stat().st_size for name, path in parts.items()},
    }
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    image = cache_dir() / "vm-images" / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not image.is_dir():
        with only_builder(image.parent, say):
            if not image.is_dir():
                building = image.with_suffix(".building")
                _fill(building, parts, text)
                building.rename(image)
    if into is None:
        return image
    return copy_image(image, into)


def copy_image(image: Path, into: Path) -> Path:
    """A new folder with the image's files: as links if the file system allows them, else as copies."""
    if into.exists():
        raise UnusableInput(f"{into} is there already", remedy="Choose another place or remove it")
    into.parent.mkdir(parents=True, exist_ok=True)
    building = into.with_name(f"{into.name}.{os.getpid()}.building")
    if building.exists():
        remove_folder(building)
    text = read_bounded(image / MANIFEST, LIMIT).decode()
    _fill(building, {name: image / name for name in FILES}, text)
    building.rename(into)
    return into


def damaged_files(image: Path, manifest: Manifest) -> list[str]:
    """The names of files that are missing or differ from the manifest. It reads all files: 1 s for a gigabyte."""
    return [
        name
        for name in FILES
        if not (image / name).is_file()
        or (image / name).stat().st_size != manifest.size_bytes[name]
        or hash_file(image / name, manifest.size_bytes[name]).hex() != manifest.sha256[name]
    ]


def checked_owner_key(line: str) -> tuple[str, str]:
    """Kind and base64 of an SSH public key. UnusableInput if it is not one, or has options before it."""
    found = _OWNER_KEY.fullmatch(line.strip())
    if found is not None:
        kind, encoded = found[1], found[2]
        try:
            blob = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            blob = b""
        # RFC 4253, section 6.6: it starts with its own kind, as a string after its length.
        if blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
            return kind, encoded
    raise UnusableInput(
        f"{line.strip()[:80]!r} is not an SSH public key",
        remedy="Use the .pub file of a key, one line that starts with its kind",
    )


def _command_line(owner_key: str, evidence: GuestEvidence, security: str, *, emulated: bool) -> str:
    kind, encoded = checked_owner_key(owner_key)
    words = [
        COMMAND_LINE,
        *([EMULATED_COMMAND_LINE] if emulated else []),
        *([security] if security else []),
        _SEALED,
    ]
    return " ".join([*words, f"sealift.evidence={evidence}", f"sealift.owner={kind},{encoded}"])


def _fill(folder: Path, parts: dict[str, Path], manifest: str) -> None:
    folder.mkdir(parents=True)
    for name, path in parts.items():
        _link(path, folder / name)
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # another file system, or a file system without links
        shutil.copyfile(path, to)
