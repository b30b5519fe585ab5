"""What is no file, or has no end, or is nested without end, is refused at once wherever a file is named."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks import frames
from benchmarks.faults import matrix
from benchmarks.sweep import read_plan, read_responses
from sealift import inventory as inventories
from sealift.attestation.keystore import Directory
from sealift.attestation.record import Records
from sealift.errors import SealiftError, UnusableInput
from sealift.host import ssh
from sealift.inventory import Host
from sealift.migration import history

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.alone

AT_ONCE_S = 2
HUGE = 2 << 30


def key_file(path: Path) -> None:
    ssh._read_key("host", Host(address="192.0.2.1", host_key="x", key_file=path))


def record(path: Path) -> None:
    Records(path.parent).read(path.stem)


def key(path: Path) -> None:
    path.parent.chmod(0o700)
    path.rename(path.with_suffix(""))
    Directory(path.parent).get(path.stem)


READERS: dict[str, Callable[[Path], object]] = {
    "inventory": inventories.load,
    "sweep": read_plan,
    "results": matrix.stored,
    "frames": frames.read,
    "responses": read_responses,
    "key file": key_file,
    "record": record,
    "keystore": key,
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


def directory(path: Path) -> None:
    path.mkdir()


def nested(path: Path) -> None:
    path.write_text("a = " + "[" * 100_000 if path.suffix == ".toml" else "[" * 100_000)


@pytest.mark.parametrize("kind", [fifo, device, huge, directory, nested])
@pytest.mark.parametrize("name", READERS)
@pytest.mark.timeout(20)
def test_it_is_refused_at_once(name: str, kind: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / ("given.toml" if name in {"inventory", "sweep"} else "given.json")
    kind(path)
    began = time.monotonic()
    with pytest.raises(UnusableInput):
        READERS[name](path)
    assert time.monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize("kind", [fifo, device, huge, nested])
@pytest.mark.timeout(20)
def test_what_was_learned_is_forgotten_if_it_cannot_be_read(
    kind: Callable[[Path], None], tmp_path: Path
) -> None:
    gateway = Host(address="192.0.2.1", host_key="x", key_file=tmp_path)
    inventory = inventories.Inventory(hosts={}, gateway=gateway, state=tmp_path)
    (tmp_path / "history").mkdir(mode=0o700)
    kind(tmp_path / "history" / "constants.json")
    assert not history.recall(inventory, "a", "b").learned
    history.learn(inventory, "a", "b", 1, 2)
    assert history.recall(inventory, "a", "b").learned


def test_a_policy_that_is_a_pipe_is_no_policy(tmp_path: Path) -> None:
    from sealift.attestation.demand import Demand
    from sealift.inventory import Vm

    os.mkfifo(tmp_path / "policy.toml")
    with pytest.raises(SealiftError, match="is not a file"):
        Demand.of("host", Vm(policy=tmp_path / "policy.toml"))
