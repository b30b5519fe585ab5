"""Records of evidence: stale by age, by another policy; and what an inventory becomes by them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from sealift.attestation.record import Record, Records, pinned
from sealift.errors import Refused, UnusableInput
from sealift.inventory import Host, Inventory, Vm

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def record(**changes: object) -> Record:
    fields = {
        "host": "b",
        "kind": "snp",
        "verified_at": NOW,
        "policy_sha256": "p",
        "ssh_host_key": "ssh-ed25519 AAAA",
        "wireguard_key": "key=",
        "measurement": "ab" * 48,
        "emulated": True,
        "answered_by": "emulated",
        "checks": 40,
    }
    return Record.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("lifetime_s", "policy", "age_s", "fresh"),
    [
        (300, "p", 0, True),
        (300, "p", 299, True),
        (300, "p", 300, False),
        (0, "p", 0, False),
        (300, "another", 1, False),
        (300, "p", -1, False),
    ],
)
def test_how_long_evidence_holds(lifetime_s: int, policy: str, age_s: int, fresh: bool) -> None:
    assert record().is_fresh(lifetime_s, policy, NOW + timedelta(seconds=age_s)) is fresh


def test_what_is_emulated_says_so_and_what_is_not_encrypted_too() -> None:
    emulated, real = (
        record().sentences(),
        record(emulated=False, generation="milan", encrypted_disk=True).sentences(),
    )
    assert "EMULATED" in emulated[0]
    assert any("no disk encryption" in line for line in emulated)
    assert not any("EMULATED" in line or "no disk" in line for line in real)
    assert "AMD's Milan" in real[0]


def test_records_are_private_and_come_back_as_they_were(tmp_path: Path) -> None:
    records = Records(tmp_path / "verified")
    assert records.read("b") is None
    assert records.all() == []
    records.write(record())
    assert records.all() == [records.read("b")] == [record()]
    assert (tmp_path / "verified").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "verified/b.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "verified/b.json").write_text("{}")
    with pytest.raises(UnusableInput, match="is not a record"):
        records.read("b")
    (tmp_path / "verified/b.json").unlink()
    assert records.read("b") is None
    (tmp_path / "verified").chmod(0o755)
    with pytest.raises(Refused):
        records.write(record())


def test_an_inventory_is_given_only_the_keys_that_it_does_not_name(tmp_path: Path) -> None:
    plain = Host(address="192.0.2.1", host_key="ssh-ed25519 BBBB", key_file=tmp_path / "k")
    proving = Host(address="192.0.2.2", key_file=tmp_path / "k", vm=Vm(policy=tmp_path / "p"))
    inventory = Inventory(hosts={"a": plain, "b": proving}, gateway=plain, state=tmp_path)
    assert pinned(inventory) == inventory
    Records.of(inventory).write(record())
    Records.of(inventory).write(record(host="a"))
    known = pinned(inventory)
    assert known.host("b").host_key == "ssh-ed25519 AAAA"
    assert known.host("b").wireguard_key == "key="
    assert known.host("a") == plain
