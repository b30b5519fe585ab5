"""Files that arrived are on the disk, or whoever waits for that is told why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sealift_agent.files import flush
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path


def test_each_file_system_is_flushed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, flushed = flush._syncfs, []

    def seen(place: str) -> None:
        real(place)
        flushed.append(place)

    monkeypatch.setattr(flush, "_syncfs", seen)
    inner = tmp_path / "volume"
    inner.mkdir()
    flush.Flush([str(tmp_path), str(inner), "/proc"]).wait()
    assert len(flushed) == 2
    flush.Flush([]).wait()
    assert len(flushed) == 2


def test_what_cannot_be_flushed_is_said(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"can't be written to the disk: .*gone") as raised:
        flush.Flush([str(tmp_path / "gone")]).wait()
    assert raised.value.step == "transfer"
