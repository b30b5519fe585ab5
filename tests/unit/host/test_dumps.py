"""The tmpfs that images rest on: there as long as any migration needs it, gone after the last."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from sealift.host.agent import criu

if TYPE_CHECKING:
    from pathlib import Path

TIMES = 20


@pytest.fixture
def dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    monkeypatch.setattr(criu, "DUMPS", tmp_path / "dumps")
    return tmp_path / "dumps"


def test_it_is_gone_with_the_last_migration(dumps: Path) -> None:
    first, second = criu.open_dumps("first"), criu.open_dumps("second")
    criu.wipe(*first)
    assert os.path.ismount(dumps)
    criu.wipe(*second)
    assert not os.path.ismount(dumps)


def test_no_migration_loses_it_to_another_that_ends(dumps: Path) -> None:
    lost: list[Exception] = []

    def come_and_go(name: str) -> None:
        try:
            for number in range(TIMES):
                directory, lock = criu.open_dumps(f"{name}-{number}")
                (directory / "image").write_text("here")
                assert os.path.ismount(dumps)
                assert (directory / "image").read_text() == "here"
                criu.wipe(directory, lock)
        except (OSError, AssertionError) as failure:
            lost.append(failure)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost
    assert not os.path.ismount(dumps)
    assert not any(dumps.iterdir())
