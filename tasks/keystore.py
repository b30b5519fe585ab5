"""Disk keys in Prefect: a keystore for owners who keep their secrets there instead of in a folder.

Two `Secret` blocks a VM: `sealift-disk-key-VM`, and `sealift-next-disk-key-VM` until its disk has taken that one.
Nothing takes this keystore by itself: keys are in files of mode 0600 (`sealift.attestation.keystore.Directory`).
Prefect encrypts blocks with a key of its own, and hands them out in the clear: who may use its API, or has its database
and that key, has the disks. Its API has to ask for a password.
"""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.blocks.system import Secret
from pydantic import SecretStr

from sealift.attestation.keystore import another_pending, turn_at
from sealift.errors import UnusableInput
from sealift.paths import state_dir
from sealift.private import private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "sealift-disk-key-"
_PENDING = "sealift-next-disk-key-"
_INDEX = f"{_PREFIX}index"


@dataclass(frozen=True)
class SecretBlocks:
    """A `sealift.attestation.keystore.Keystore`."""

    def names(self) -> list[str]:
        """See `Keystore`: blocks cannot be listed by value, so an index block says which there are."""
        return sorted(_load(_INDEX))

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """See `Keystore`. Among the programs of one machine; between two machines `propose` decides."""
        with turn_at(private_folder(state_dir() / "turns") / f"{name}.lock", name):
            yield

    def get(self, name: str) -> str | None:
        """See `Keystore`."""
        return _load(_PREFIX + name).get("key")

    def pending(self, name: str) -> str | None:
        """See `Keystore`."""
        pending: str | None = _load(_PENDING + name).get("key")
        return None if pending == self.get(name) else pending

    def propose(self, name: str, key: str) -> None:
        """See `Keystore`. Prefect makes a block of a name once: of two at once, one finds the other's."""
        _save(_INDEX, {**_load(_INDEX), name: True})
        if _load(_PENDING + name) and self.pending(name) is None:
            Secret.delete(_PENDING + name)  # settled, and killed before this
        try:
            _save(_PENDING + name, {"key": key}, overwrite=False)
        except ValueError:
            if self.pending(name) != key:
                raise another_pending(name) from None

    def settle(self, name: str, key: str) -> None:
        """See `Keystore`."""
        if self.pending(name) == key:
            _save(_PREFIX + name, {"key": key})
            Secret.delete(_PENDING + name)

    def wipe(self, name: str) -> None:
        """See `Keystore`."""
        if self.get(name) is None and self.pending(name) is None:
            raise UnusableInput(f"Prefect has no key of {name!r}", remedy="`sealift keys list` shows all")
        for block in (_PREFIX + name, _PENDING + name):
            _save(block, {})
            with suppress(ValueError):
                Secret.delete(block)
        _save(_INDEX, {one: True for one in _load(_INDEX) if one != name})


def _load(block: str) -> dict[str, Any]:
    try:
        found = Secret.load(block)
    except ValueError:  # Prefect's way to say that there is none
        return {}
    if not isinstance(found, Secret):  # only from inside an event loop, where nothing of this is called
        raise TypeError(block)
    value = found.get()
    content: dict[str, Any] = json.loads(value) if isinstance(value, str) else dict(value)
    return content


def _save(block: str, content: dict[str, Any], *, overwrite: bool = True) -> None:
    Secret(value=SecretStr(json.dumps(content))).save(block, overwrite=overwrite)
