"""Records of verified evidence: the host, the time, the keys. They last from one command to the next.

A record pins a host's keys. It is valid only until the host's next boot: a VM generates new keys at each start, so
afterwards no machine has the pinned ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sealift.errors import UnusableInput
from sealift.files import read_bounded
from sealift.private import private_folder, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.inventory import Inventory


class Record(BaseModel):
    """One host's verified evidence: the fields that are shown to a person or compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    kind: Literal["snp", "sev"]
    verified_at: datetime
    policy_sha256: str
    ssh_host_key: str
    wireguard_key: str
    measurement: str
    generation: str | None = None
    root_sha256: str | None = None
    emulated: bool
    answered_by: str
    chip_id: str = ""
    tcb: str = ""
    boot_id: str = ""
    launch_id: str = ""
    encrypted_disk: bool = False
    checks: int
    unchecked: list[str] = []

    def is_fresh(self, lifetime_s: int, policy_sha256: str, now: datetime | None = None) -> bool:
        """Whether it is still valid: by its age, and for the same policy."""
        age = (now or datetime.now(UTC)) - self.verified_at
        return policy_sha256 == self.policy_sha256 and timedelta(0) <= age < timedelta(seconds=lifetime_s)

    def sentences(self) -> list[str]:
        """The verdict as lines for a person."""
        technology = {"snp": "SEV-SNP report", "sev": "SEV launch measurement"}[self.kind]
        processor = "an EMULATED secure processor: it proves the protocol, not the hardware"
        if not self.emulated:
            processor = f"AMD's {(self.generation or 'processor').capitalize()}"
        keys = "in the signed report" if self.kind == "snp" else "those that were injected"
        lines = [
            f"{technology} verified {self.verified_at:%Y-%m-%d %H:%M:%S} UTC ({self.checks} checks hold), signed by "
            f"{processor}",
            f"measurement {self.measurement[:16]}… is the one that the policy names",
            f"SSH host key and WireGuard key are {keys}",
        ]
        if not self.encrypted_disk:
            lines.append("no disk encryption here: data at rest is in the host's memory only")
        return lines


RECORD_LIMIT = 1 << 20


@dataclass(frozen=True)
class Records:
    """Records by host, in a folder of mode 0700."""

    folder: Path

    @classmethod
    def of(cls, inventory: Inventory) -> Records:
        """The records of an inventory."""
        return cls(inventory.state_folder / "verified")

    def read(self, host: str) -> Record | None:
        """The record of a host, or None. UnusableInput for a record that cannot be read."""
        path = self.folder / f"{host}.json"
        if not os.path.lexists(path):
            return None
        try:
            return Record.model_validate_json(read_bounded(path, RECORD_LIMIT))
        except (UnusableInput, ValidationError) as unreadable:
            raise UnusableInput(f"{path} is not a record of evidence", remedy="Remove it") from unreadable

    def write(self, record: Record) -> None:
        """Save a record, atomically, and sync it to the disk."""
        folder = private_folder(self.folder)
        write_private(folder / f"{record.host}.json", record.model_dump_json(indent=1).encode())

    def all(self) -> list[Record]:
        """All records."""
        names = sorted(path.stem for path in self.folder.glob("*.json")) if self.folder.is_dir() else []
        return [record for name in names if (record := self.read(name)) is not None]


def pinned(inventory: Inventory) -> Inventory:
    """The inventory with the keys of its hosts' last attestation."""
    records = Records.of(inventory)
    for name, host in inventory.hosts.items():
        if host.vm is not None and host.host_key is None and (record := records.read(name)) is not None:
            inventory = inventory.known_as(
                name, host_key=record.ssh_host_key, wireguard_key=record.wireguard_key
            )
    return inventory
