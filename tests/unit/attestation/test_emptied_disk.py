"""An empty data disk is formatted the first time, and afterwards only if the owner says so."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from fresh import fresh

from sealift.attestation import provision
from sealift.attestation.keystore import Directory
from sealift.attestation.record import Record
from sealift.errors import CommandFailed, Refused
from sealift_guest import data_disk, guest

if TYPE_CHECKING:
    from pathlib import Path

FORMATTED = "formatted"
RECORD = Record(
    host="vm",
    kind="snp",
    verified_at=datetime.now(UTC),
    policy_sha256="00" * 32,
    ssh_host_key="ssh-ed25519 AAAA",
    wireguard_key="key",
    measurement="00" * 48,
    generation="milan",
    root_sha256="00" * 32,
    emulated=True,
    answered_by="emulated",
    chip_id="00",
    boot_id="boot",
    encrypted_disk=True,
    checks=1,
    unchecked=[],
)


class Vm:
    """A guest whose disk is a file: the data disk's program says what it is, up to where a kernel would map it."""

    def __init__(self, folder: Path) -> None:
        self.program: Any = fresh(data_disk)
        self.disk = folder / "disk"
        self.empty()
        self.orders: list[dict[str, Any]] = []
        self.program.RUN = folder / "run"
        self.program.data_disk = lambda: str(self.disk)
        self.program.unlocked = lambda disk, key: self.disk.read_bytes().strip(b"\0") == FORMATTED.encode()
        self.program.format_disk = lambda disk, key: self.disk.write_text(FORMATTED)
        for nothing in ("mount", "bind_folders", "close_leftovers", "run"):
            setattr(self.program, nothing, lambda *_, **__: None)

    def empty(self) -> None:
        self.disk.write_bytes(bytes(4096))

    def give(self, connection: object, order: str, content: dict[str, Any]) -> dict[str, Any]:
        self.orders.append(content)
        verb = "format" if content["fresh_disk"] else "open"
        try:
            self.program.main([verb], io.StringIO(f"{content['disk_key']}\n"))
        except self.program.Refusal as refusal:
            raise CommandFailed(guest.DISK_FAULTS[refusal.status], status=refusal.status) from refusal
        return {"disk": "opened"}


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vm:
    made = Vm(tmp_path)
    monkeypatch.setattr(provision, "give", made.give)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "keys")


def opened(store: Directory, *, fresh_disk: bool = False) -> str:
    return provision._give_with_key(None, {}, RECORD, store, fresh_disk=fresh_disk)  # type: ignore[arg-type]


def test_the_first_time_it_is_formatted_and_then_it_is_only_opened(vm: Vm, store: Directory) -> None:
    assert opened(store) == "opened"
    assert store.get("vm") is not None
    assert opened(store) == "opened"
    assert [order["fresh_disk"] for order in vm.orders] == [True, False]
    assert len({order["disk_key"] for order in vm.orders}) == 1


def test_emptied_it_is_refused_with_what_happened_and_the_remedy(vm: Vm, store: Directory) -> None:
    opened(store)
    key = store.get("vm")
    vm.empty()
    with pytest.raises(Refused, match="emptied or replaced") as refused:
        opened(store)
    assert "`sealift attest vm --provision --fresh-disk`" in str(refused.value)
    assert vm.disk.read_bytes() == bytes(4096)
    assert opened(store, fresh_disk=True) == "opened"
    assert store.get("vm") == key


def test_an_owner_who_was_killed_before_its_first_opening_need_not_say_anything(
    vm: Vm, store: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(provision, "give", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(store)
    assert store.get("vm") is None
    assert opened(store) == "opened"
    assert store.get("vm") == vm.orders[0]["disk_key"]


def test_after_a_rotation_that_was_interrupted_an_emptied_disk_is_refused_as_well(
    vm: Vm, store: Directory
) -> None:
    opened(store)
    store.propose("vm", "ab" * 32)
    vm.empty()
    with pytest.raises(Refused, match="emptied or replaced"):
        opened(store)
    assert vm.disk.read_bytes() == bytes(4096)
    assert store.pending("vm") == "ab" * 32
