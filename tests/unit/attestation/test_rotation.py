"""Rotating a disk key: of two at once, and killed at any moment, the keystore has the key and the disk one slot.

The keystore, the guest's program and cryptsetup are the real ones, over a LUKS2 volume in a file. Only its cipher is
another: a kernel need not have the one that authenticates, and none of the keys' slots depends on it.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fresh import fresh

from sealift.attestation import provision
from sealift.attestation.keystore import Directory, draw_key
from sealift.errors import CommandFailed
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import tree_path
from sealift_guest import data_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="cryptsetup keeps its locks where only root may write"),
]

WRITES = 3
"""Of the blocks that one writing back consists of, the first ones and the last are moments of their own."""


@dataclass(frozen=True)
class DiskSetup:
    """A keystore, a disk in a file, and the data disk's program that changes its keys."""

    folder: Path
    program: Any

    @property
    def store(self) -> Directory:
        return Directory(self.folder / "keys")

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    def format(self, key: str) -> None:
        with self.disk.open("wb") as file:
            file.truncate(16 << 20)
        words = [
            *("luksFormat", "--type", "luks2", "--cipher", "aes-xts-plain64", "--key-size", "512"),
            *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha256"),
            *("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "992k", "--offset", "2048"),
        ]
        self.program.cryptsetup([*words, self.disk], key.encode(), check=True)
        mark = b'{"type": "sealift-data", "keyslots": []}'
        self.program.run(
            ["cryptsetup", "token", "import", "--token-id", "0", "--json-file", "-", self.disk], stdin=mark
        )
        self.store.propose("vm", key)
        self.store.settle("vm", key)

    def rotate(self, kill_at: int = 0) -> int:
        """As `sealift keys rotate` does it, in a process of its own, killed at a moment. Its end, as of `wait`."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                Moments(kill_at).watch(self.program)
                provision.rotate(None, "vm", self.store)  # type: ignore[arg-type]  # `give` needs none here
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def moments(self) -> int:
        """How many moments a rotation has."""
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                moments = Moments(0)
                moments.watch(self.program)
                provision.rotate(None, "vm", self.store)  # type: ignore[arg-type]  # as above
                os.write(writable, str(moments.passed).encode())
            finally:
                os._exit(0)
        os.close(writable)
        os.waitpid(child, 0)
        with os.fdopen(readable) as said:
            return int(said.read())

    def opening(self) -> list[str]:
        """Which of the stored keys open the disk."""
        found = [key for key in (self.store.get("vm"), self.store.pending("vm")) if key is not None]
        return [key for key in found if self.program.slot_of(str(self.disk), key.encode()) is not None]

    def slots(self) -> int:
        return len(self.program.metadata(str(self.disk))["keyslots"])


class Moments:
    """Counts the steps of a rotation in this process, and kills it at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.passed = 0
        self._written = 0

    def watch(self, program: Any) -> None:
        """Before each command, at some of the blocks written, and whenever something is on the disk."""
        program.run = self._stepping(program.run)
        program.os.fsync = self._stepping(os.fsync)
        program.os.pwrite = self._writing(os.pwrite)

    def _step(self) -> None:
        self.passed += 1
        if self.passed == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _stepping(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*words: Any, **named: Any) -> Any:
            self._step()
            self._written = 0
            done = real(*words, **named)
            self._step()
            return done

        return stepping

    def _writing(self, real: Callable[..., int]) -> Callable[..., int]:
        def writing(*words: Any) -> int:
            self._written += 1
            if self._written <= WRITES:
                self._step()
            return real(*words)

        return writing


@pytest.fixture
def disk_setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskSetup:
    tree = tree_path(RECIPE)
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    if shutil.which("cryptsetup") is None and not (tree / "usr/sbin/cryptsetup").exists():
        pytest.skip("the Debian tree is not built: `sealift lab up` builds it")
    program: Any = fresh(data_disk)
    commands = tmp_path / "bin"
    commands.mkdir()
    if shutil.which("cryptsetup") is None:
        command = f"{tree}/lib64/ld-linux-x86-64.so.2 --library-path {libraries} {tree}/usr/sbin/cryptsetup"
        (commands / "cryptsetup").write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (commands / "cryptsetup").chmod(0o755)
    monkeypatch.setitem(program.ENVIRONMENT, "PATH", f"{commands}:{program.ENVIRONMENT['PATH']}")
    program.RUN = tmp_path / "run"
    program.RUN.mkdir()
    program.data_disk = lambda: str(tmp_path / "disk")
    program.check_header = lambda content: None  # another cipher; test_data_disk.py has what it refuses

    def give(connection: None, order: str, content: dict[str, str]) -> dict[str, Any]:
        try:
            program.main([order], io.StringIO(f"{content['old_key']}\n{content['new_key']}\n"))
        except program.Refusal as refusal:
            raise CommandFailed(str(refusal), status=refusal.status) from refusal
        return {}

    monkeypatch.setattr(provision, "give", give)
    made = DiskSetup(tmp_path, program)
    made.format(draw_key())
    return made


def test_of_two_rotations_at_once_each_ends_well_and_the_stored_key_is_the_one_slot(
    disk_setup: DiskSetup,
) -> None:
    first = disk_setup.store.get("vm")
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = disk_setup.rotate()
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert disk_setup.opening() == [disk_setup.store.get("vm")]
    assert disk_setup.store.get("vm") != first
    assert disk_setup.slots() == 1


def test_killed_at_any_moment_a_stored_key_opens_the_disk_and_the_next_rotation_ends_well(
    disk_setup: DiskSetup,
) -> None:
    kept = disk_setup.folder / "kept"
    kept.mkdir()
    for name in ("disk", "keys"):
        subprocess.run(["cp", "-a", disk_setup.folder / name, kept], check=True)
    seen = set()
    for moment in range(1, disk_setup.moments() + 1):
        shutil.rmtree(disk_setup.folder / "keys")
        for name in ("disk", "keys"):
            subprocess.run(["cp", "-a", kept / name, disk_setup.folder], check=True)
        first = disk_setup.store.get("vm")
        assert disk_setup.rotate(kill_at=moment) == -signal.SIGKILL, moment
        opening, slots = disk_setup.opening(), disk_setup.slots()
        assert opening, moment
        seen.add((len(opening), slots, opening[0] == first))
        assert disk_setup.rotate() == 0, moment
        assert disk_setup.opening() == [disk_setup.store.get("vm")], moment
        assert disk_setup.store.get("vm") not in {first, *opening[1:]}, moment
        assert (disk_setup.slots(), disk_setup.store.pending("vm")) == (1, None), moment
    # Nothing done yet; both slots; the old one gone but the new one not settled.
    assert {(1, 1, True), (2, 2, True), (1, 1, False)} <= seen
