"""Logs of a failed migration: their ends are read on the hosts and kept on the controller, a few migrations long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from sealift.errors import HostUnreachable, MigrationFailed, Refused, SealiftError
from sealift.migration import kept_logs
from sealift_agent import logs
from sealift_agent.protocol import ReadDestinationLogs, ReadSourceLogs

if TYPE_CHECKING:
    from pathlib import Path


class Agent:
    def __init__(self, said: dict[str, str] | SealiftError) -> None:
        self.said = said

    def call(self, order: object, *, timeout_s: float) -> dict[str, str]:
        assert isinstance(order, ReadSourceLogs | ReadDestinationLogs)
        assert timeout_s
        if isinstance(self.said, SealiftError):
            raise self.said
        return self.said


def parties(source: dict[str, str] | SealiftError, destination: dict[str, str] | SealiftError | None) -> Any:
    there = None if destination is None else SimpleNamespace(agent=Agent(destination))
    return SimpleNamespace(opened_source=SimpleNamespace(agent=Agent(source)), opened_destination=there)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEALIFT_STATE", str(tmp_path))
    return tmp_path / "failed"


def test_the_ends_of_all_logs_are_read(tmp_path: Path) -> None:
    (tmp_path / "a/final").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "a/final/dump.log").write_bytes(b"x" * logs.MOST_BYTES + b"end \xff")
    (tmp_path / "a/final/pages-1.img").write_bytes(b"secret")
    (tmp_path / "b/restore.log").write_text("restored")
    (tmp_path / "b/complaints").write_text("none")
    (tmp_path / "b/empty.log").touch()
    found = logs.read([tmp_path / "a", tmp_path / "b", tmp_path / "gone"])
    assert set(found) == {"final-dump.log", "restore.log", "complaints"}
    assert found["final-dump.log"].endswith("end \N{REPLACEMENT CHARACTER}")
    assert len(found["final-dump.log"]) == logs.MOST_BYTES


def test_they_are_kept_and_the_error_names_the_place(state: Path) -> None:
    failed = MigrationFailed("it failed", remedy="Migrate again")
    kept_logs.keep(
        parties({"final-dump.log": "why"}, {"restore.log": "there"}), "20260101T000000-abc", failed
    )
    assert str(failed) == f"it failed. Migrate again. CRIU's logs are in {state}/20260101T000000-abc"
    assert (state / "20260101T000000-abc/source-final-dump.log").read_text() == "why"
    assert (state / "20260101T000000-abc/destination-restore.log").read_text() == "there"


def test_a_host_that_is_lost_or_was_never_opened_has_none(state: Path) -> None:
    failed = MigrationFailed("it failed")
    kept_logs.keep(parties(HostUnreachable("gone"), None), "m", failed)
    assert failed.remedy is None
    assert not state.exists()


def test_a_refusal_has_none(state: Path) -> None:
    refused = Refused("no")
    kept_logs.keep(parties({"a.log": "b"}, None), "m", refused)
    assert refused.remedy is None
    assert not state.exists()


def test_a_host_chooses_no_place_on_the_controller(state: Path) -> None:
    names = {"../../x": "1", "/etc/passwd": "2", "a\0b": "3", "c" * 5000: "4"}
    kept_logs.keep(parties(names, None), "m", MigrationFailed("it failed"))
    assert len(list((state / "m").iterdir())) == 4
    assert [path.name for path in state.parent.iterdir()] == ["failed"]


def test_only_the_latest_are_kept(state: Path) -> None:
    for number in range(kept_logs.KEPT + 3):
        kept_logs.keep(parties({"a.log": "b"}, None), f"m{number:03}", MigrationFailed("it failed"))
    assert sorted(path.name for path in state.iterdir()) == [f"m{n:03}" for n in range(3, kept_logs.KEPT + 3)]
