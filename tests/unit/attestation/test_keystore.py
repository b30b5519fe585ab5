"""Disk keys: for their owner's eyes only, never lost by a crash or an oversight, gone when they are wiped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.attestation import keystore
from sealift.attestation.keystore import Directory, draw_key, key_for
from sealift.errors import Refused, UnusableInput

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def store(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "keys")


def first_key(store: Directory, name: str = "vm") -> str:
    """As it is once the VM's disk has been opened with it."""
    key = key_for(store, name)
    store.settle(name, key)
    return key


def test_a_key_is_drawn_once_and_kept_before_it_is_used(store: Directory) -> None:
    key = key_for(store, "vm")
    assert key_for(store, "vm") == key == store.pending("vm")
    assert store.get("vm") is None
    store.settle("vm", key)
    assert key_for(store, "vm") == key == store.get("vm")
    assert len(bytes.fromhex(key)) == 32
    assert key_for(store, "other") != key
    assert store.names() == ["other", "vm"]


def test_nobody_else_can_look(store: Directory) -> None:
    first_key(store)
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert (store.folder / "vm").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_that_others_may_look_into_is_refused(store: Directory, mode: int) -> None:
    key_for(store, "vm")
    store.folder.chmod(mode)
    with pytest.raises(Refused, match="owner's eyes only"):
        store.get("vm")


def test_a_pending_key_is_never_overwritten(store: Directory) -> None:
    first_key(store)
    store.propose("vm", key := draw_key())
    with pytest.raises(Refused, match="rotation of 'vm' was interrupted"):
        store.propose("vm", draw_key())
    store.propose("vm", key)
    assert store.pending("vm") == key


@pytest.mark.parametrize("name", ["", "../vm", "a/b", ".hidden", "vm.pending", "x" * 65, "a\n"])
def test_a_name_cannot_lead_elsewhere(store: Directory, name: str) -> None:
    with pytest.raises(UnusableInput, match="is not a valid name of a key"):
        store.propose(name, draw_key())


def test_a_damaged_key_is_refused_without_being_shown(store: Directory) -> None:
    key = first_key(store)
    (store.folder / "vm").write_text(key[:40])
    with pytest.raises(UnusableInput) as raised:
        store.get("vm")
    assert key[:16] not in str(raised.value)


def test_a_rotation_has_both_keys_until_it_is_settled(store: Directory) -> None:
    old, new = first_key(store), draw_key()
    store.propose("vm", new)
    assert (store.get("vm"), store.pending("vm")) == (old, new)
    assert store.names() == ["vm"]
    store.settle("vm", new)
    assert (store.get("vm"), store.pending("vm")) == (new, None)


def test_an_older_rotation_that_is_settled_late_changes_nothing(store: Directory) -> None:
    oldest, older, newer = first_key(store), draw_key(), draw_key()
    store.propose("vm", older)
    store.settle("vm", older)
    store.propose("vm", newer)
    for late in (oldest, older, draw_key()):
        store.settle("vm", late)
        assert (store.get("vm"), store.pending("vm")) == (older, newer)
    store.settle("vm", newer)
    store.settle("vm", older)
    assert (store.get("vm"), store.pending("vm")) == (newer, None)


def test_turns_come_one_after_the_other_and_each_vm_has_its_own(
    store: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystore, "TURN_S", 0.2)
    with (
        store.turn("vm"),
        store.turn("other"),
        pytest.raises(Refused, match="another program has been changing the key of 'vm'"),
        store.turn("vm"),
    ):
        pass
    with store.turn("vm"):
        assert store.names() == []


def dies_at(monkeypatch: pytest.MonkeyPatch, module: object, name: str, call: int) -> None:
    """The process is killed in that call of a function."""
    real: Callable[..., object] = getattr(module, name)
    calls = []

    def dying(*arguments: object, **named: object) -> object:
        calls.append(name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, dying)


@pytest.mark.parametrize(
    ("module", "name"), [(Path, "rename"), (keystore, "sync_folder"), (keystore, "_scramble")]
)
def test_a_crash_while_a_rotation_is_settled_leaves_a_whole_key(
    store: Directory, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    old, new = first_key(store), draw_key()
    store.propose("vm", new)
    with monkeypatch.context() as patch:
        dies_at(patch, module, name, 1)
        with pytest.raises(KeyboardInterrupt):
            store.settle("vm", new)
    assert (store.get("vm"), store.pending("vm")) in [(old, new), (new, None)]


def test_wiping_overwrites_and_removes_all_keys_of_a_vm(store: Directory) -> None:
    key = first_key(store)
    store.propose("vm", draw_key())
    kept = first_key(store, "other")
    handle = os.open(store.folder / "vm", os.O_RDONLY)
    store.wipe("vm")
    assert key.encode() not in os.read(handle, 1000)
    os.close(handle)
    assert store.names() == ["other"]
    assert store.get("other") == kept
    with pytest.raises(UnusableInput, match="no key of 'vm'"):
        store.wipe("vm")
