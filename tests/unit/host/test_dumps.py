"""The tmpfs that images rest on: there as long as any migration needs it, gone after the last."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from sealift.host.agent import dumps

if TYPE_CHECKING:
    from pathlib import Path

TIMES = 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    monkeypatch.setattr(dumps, "DUMPS", tmp_path / "dumps")
    return tmp_path / "dumps"


def test_it_is_gone_with_the_last_migration(place: Path) -> None:
    first, second = dumps.make("first"), dumps.make("second")
    dumps.wipe(*first)
    assert os.path.ismount(place)
    dumps.wipe(*second)
    assert not os.path.ismount(place)


def test_no_migration_loses_it_to_another_that_ends(place: Path) -> None:
    lost: list[Exception] = []

    def come_and_go(name: str) -> None:
        try:
            for number in range(TIMES):
                directory, lock = dumps.make(f"{name}-{number}")
                (directory / "image").write_text("here")
                assert os.path.ismount(place)
                assert (directory / "image").read_text() == "here"
                dumps.wipe(directory, lock)
        except (OSError, AssertionError) as failure:
            lost.append(failure)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost
    assert not os.path.ismount(place)
    assert not any(place.iterdir())
