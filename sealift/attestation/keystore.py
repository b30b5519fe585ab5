"""Disk keys: one per VM, drawn by the owner, released only to verified evidence.

The keystore is an interface, since an owner may keep keys elsewhere (`tasks` has one of Prefect's blocks). A key is
`pending` until the disk has taken it, so that a crash in between loses neither it nor the one before. So a VM that has
a key besides has had its disk opened with it, and an empty disk is then none that may be formatted.

What changes a VM's keys is done in its `turn`: of two rotations at once, one waits for the other.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sealift.errors import Refused, UnusableInput
from sealift.files import read_bounded
from sealift.locks import try_lock
from sealift.private import private_folder, sync_folder, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedRandom
    from pathlib import Path

KEY_BYTES = 32
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")
_PENDING = ".pending"
_RECORD_LIMIT = 1024
_LOOK_S = 0.05
TURN_S = 900.0
"""How long one waits for another that changes the same VM's keys: longer than a guest may take for an order."""


class Keystore(Protocol):
    """Keys as 64 hexadecimal digits, by the VM's name."""

    def names(self) -> list[str]:
        """Who has a key."""

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Nobody else changes this VM's keys in it. Refused if another one's turn does not end."""

    def get(self, name: str) -> str | None:
        """The key of a VM, which its disk has been opened with."""

    def pending(self, name: str) -> str | None:
        """The key that its disk was about to take, or has taken."""

    def propose(self, name: str, key: str) -> None:
        """Keep the key that the VM's disk is about to take. Refused where another one is pending."""

    def settle(self, name: str, key: str) -> None:
        """The disk has taken this key: if it is still pending, it is the key now. One that came later stays."""

    def wipe(self, name: str) -> None:
        """Destroy all keys of a VM: what is on its disk is lost."""


def draw_key() -> str:
    """A fresh key."""
    return secrets.token_hex(KEY_BYTES)


def key_for(store: Keystore, name: str) -> str:
    """The key of a VM; drawn now, and kept as a pending one before anybody uses it, if it has none. In its turn."""
    key = store.get(name) or store.pending(name)
    if key is None:
        store.propose(name, key := draw_key())
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

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """See `Keystore`. A lock on a file beside the keys: the kernel ends the turn of whoever is killed in it."""
        with turn_at(self._path(name).with_name(f".{name}.lock"), name):
            yield

    def get(self, name: str) -> str | None:
        """See `Keystore`."""
        return self._read(self._path(name))

    def pending(self, name: str) -> str | None:
        """See `Keystore`."""
        return self._read(self._path(name, _PENDING))

    def propose(self, name: str, key: str) -> None:
        """See `Keystore`."""
        try:
            write_private(self._path(name, _PENDING), _checked(key).encode(), replace=False)
        except FileExistsError:
            if self.pending(name) != key:
                raise another_pending(name) from None

    def settle(self, name: str, key: str) -> None:
        """See `Keystore`."""
        if self.pending(name) != key:
            return
        path = self._path(name)
        # The old key's bytes go last: whenever this is killed, one whole key is in place.
        with path.open("r+b") if path.exists() else nullcontext() as old:
            self._path(name, _PENDING).rename(path)
            sync_folder(self.folder)
            if old is not None:
                _scramble(old)

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


@contextmanager
def turn_at(lock: Path, name: str) -> Iterator[None]:
    """A turn for the programs of one machine: they share a file."""
    handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + TURN_S
        while not try_lock(handle):
            if time.monotonic() > deadline:
                raise Refused(
                    f"another program has been changing the key of {name!r} for {TURN_S / 60:.0f} minutes",
                    remedy="Find out which `sealift` it is, and end it",
                )
            time.sleep(_LOOK_S)
        yield
    finally:
        os.close(handle)


def another_pending(name: str) -> Refused:
    """The error of a `propose` that would forget a key which the disk may have taken."""
    return Refused(
        f"a rotation of {name!r} was interrupted, and its disk may have taken the key",
        remedy=f"`sealift keys rotate {name}` ends that one first",
    )


def _checked(key: str) -> str:
    if not _HEX.fullmatch(key):
        # Not what it is: it may be most of a key.
        raise UnusableInput("a disk key is not 64 hexadecimal digits", remedy="Restore it from a backup")
    return key


def _scramble(file: BufferedRandom) -> None:
    file.write(secrets.token_bytes(os.fstat(file.fileno()).st_size))
    file.flush()
    os.fsync(file.fileno())
