"""Disk keys: one per VM, drawn by the owner, released only to verified evidence.

The keystore is an interface, since an owner may keep keys elsewhere (`tasks` has one of Prefect's blocks). A rotation
has two keys for a moment: the next one is `pending` until the disk has taken it, so that a crash in between loses
neither.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sealift.attestation.private import private_folder, sync_folder, write_private
from sealift.errors import Refused, UnusableInput
from sealift.evidence.files import read_bounded

if TYPE_CHECKING:
    from io import BufferedRandom
    from pathlib import Path

KEY_BYTES = 32
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")
_PENDING = ".pending"
_RECORD_LIMIT = 1024


class Keystore(Protocol):
    """Keys as 64 hexadecimal digits, by the VM's name."""

    def names(self) -> list[str]:
        """Who has a key."""

    def get(self, name: str) -> str | None:
        """The key of a VM."""

    def put(self, name: str, key: str) -> None:
        """Keep the first key of a VM. Refused where it has one."""

    def pending(self, name: str) -> str | None:
        """The key that a rotation was about to give it."""

    def propose(self, name: str, key: str) -> None:
        """Keep the key that the VM's disk is about to take."""

    def settle(self, name: str) -> None:
        """The disk has taken the pending key: it is the key now."""

    def withdraw(self, name: str) -> None:
        """The disk has not taken the pending key: forget it."""

    def wipe(self, name: str) -> None:
        """Destroy all keys of a VM: what is on its disk is lost."""


def draw_key() -> str:
    """A fresh key."""
    return secrets.token_hex(KEY_BYTES)


def key_for(store: Keystore, name: str) -> str:
    """The key of a VM; drawn now, and kept before anybody uses it, if it has none."""
    if (key := store.get(name)) is None:
        store.put(name, key := draw_key())
    return key


@dataclass(frozen=True)
class Directory:
    """Files of mode 0600 in a folder of mode 0700."""

    folder: Path

    def names(self) -> list[str]:
        """See `Keystore`."""
        if not self.folder.is_dir():
            return []
        found = (path.name for path in private_folder(self.folder).iterdir())
        return sorted({name.removesuffix(_PENDING) for name in found if _NAME.fullmatch(name)})

    def get(self, name: str) -> str | None:
        """See `Keystore`."""
        return self._read(self._path(name))

    def put(self, name: str, key: str) -> None:
        """See `Keystore`."""
        try:
            write_private(self._path(name), _checked(key).encode(), replace=False)
        except FileExistsError:
            raise Refused(
                f"the keystore has a key of {name!r} already, and its disk would be lost with it",
                remedy=f"`sealift keys rotate {name}` changes it, `sealift keys wipe {name}` destroys it",
            ) from None

    def pending(self, name: str) -> str | None:
        """See `Keystore`."""
        return self._read(self._path(name, _PENDING))

    def propose(self, name: str, key: str) -> None:
        """See `Keystore`."""
        write_private(self._path(name, _PENDING), _checked(key).encode())

    def settle(self, name: str) -> None:
        """See `Keystore`."""
        pending = self._path(name, _PENDING)
        if pending.exists():
            path = self._path(name)
            # The old key's bytes go last: whenever this is killed, one whole key is in place.
            with path.open("r+b") as old:
                pending.rename(path)
                sync_folder(self.folder)
                _scramble(old)

    def withdraw(self, name: str) -> None:
        """See `Keystore`."""
        self._destroy(self._path(name, _PENDING))

    def wipe(self, name: str) -> None:
        """See `Keystore`. Overwritten first; a copy in a backup, or in a worn cell of a flash disk, is out of reach."""
        paths = [self._path(name), self._path(name, _PENDING)]
        if not any(path.exists() for path in paths):
            raise UnusableInput(
                f"the keystore has no key of {name!r}", remedy="`sealift keys list` shows all"
            )
        for path in paths:
            self._destroy(path)

    def _destroy(self, path: Path) -> None:
        if path.exists():
            with path.open("r+b") as file:
                _scramble(file)
            path.unlink()
            sync_folder(self.folder)

    def _path(self, name: str, suffix: str = "") -> Path:
        if not _NAME.fullmatch(name) or name.endswith(_PENDING):
            raise UnusableInput(f"{name[:64]!r} cannot name a key", remedy="Use letters, digits, - and _")
        return private_folder(self.folder) / f"{name}{suffix}"

    def _read(self, path: Path) -> str | None:
        if not os.path.lexists(path):
            return None
        return _checked(read_bounded(path, _RECORD_LIMIT).decode(errors="replace").strip())


def _checked(key: str) -> str:
    if not _HEX.fullmatch(key):
        # Not what it is: it may be most of a key.
        raise UnusableInput("a disk key is not 64 hexadecimal digits", remedy="Restore it from a backup")
    return key


def _scramble(file: BufferedRandom) -> None:
    file.write(secrets.token_bytes(os.fstat(file.fileno()).st_size))
    file.flush()
    os.fsync(file.fileno())
