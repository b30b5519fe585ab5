"""Disk keys in Prefect: a keystore for owners who keep their secrets there instead of in a folder.

One `Secret` block a VM, named `sealift-disk-key-VM`. Nothing takes this one by itself: keys are in files of mode 0600
(`sealift.attestation.keystore.Directory`). Prefect encrypts blocks with a key of its own, and hands them out in the
clear: who may use its API, or has its database and that key, has the disks. Its API has to ask for a password.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from prefect.blocks.system import Secret
from pydantic import SecretStr

from sealift.errors import Refused, UnusableInput

_PREFIX = "sealift-disk-key-"


@dataclass(frozen=True)
class SecretBlocks:
    """A `sealift.attestation.keystore.Keystore`. Both keys of a rotation stand in one block, written in one go."""

    def names(self) -> list[str]:
        """See `Keystore`: blocks cannot be listed by value, so an index block says which there are."""
        return sorted(self._load("index"))

    def get(self, name: str) -> str | None:
        """See `Keystore`."""
        return self._load(name).get("key")

    def put(self, name: str, key: str) -> None:
        """See `Keystore`."""
        if self.get(name) is not None:
            raise Refused(f"Prefect has a key of {name!r} already", remedy="`sealift keys rotate` changes it")
        self._save("index", {**self._load("index"), name: True})
        self._save(name, {"key": key})

    def pending(self, name: str) -> str | None:
        """See `Keystore`."""
        return self._load(name).get("pending")

    def propose(self, name: str, key: str) -> None:
        """See `Keystore`."""
        self._save(name, {**self._load(name), "pending": key})

    def settle(self, name: str) -> None:
        """See `Keystore`."""
        if pending := self.pending(name):
            self._save(name, {"key": pending})

    def withdraw(self, name: str) -> None:
        """See `Keystore`."""
        self._save(name, {"key": self._load(name)["key"]})

    def wipe(self, name: str) -> None:
        """See `Keystore`."""
        if self.get(name) is None:
            raise UnusableInput(f"Prefect has no key of {name!r}", remedy="`sealift keys list` shows all")
        self._save(name, {})
        Secret.delete(_PREFIX + name)
        self._save("index", {one: True for one in self._load("index") if one != name})

    def _load(self, name: str) -> dict[str, Any]:
        try:
            block = Secret.load(_PREFIX + name)
        except ValueError:  # Prefect's way to say that there is none
            return {}
        if not isinstance(block, Secret):  # only from inside an event loop, where nothing of this is called
            raise TypeError(name)
        value = block.get()
        content: dict[str, Any] = json.loads(value) if isinstance(value, str) else dict(value)
        return content

    def _save(self, name: str, content: dict[str, Any]) -> None:
        Secret(value=SecretStr(json.dumps(content))).save(_PREFIX + name, overwrite=True)
