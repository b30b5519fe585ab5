"""A control group that goes away while it is thawed or looked at needs nothing any more; other errors are said."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sealift.host.agent import cgroup


@pytest.fixture
def group(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.procs").write_text("1\n2\n")
    (tmp_path / "cgroup.freeze").write_text("1")
    return tmp_path


def failing(number: int):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "as the kernel says it")

    return fail


def test_a_group_is_read_and_thawed(group: Path) -> None:
    assert cgroup.pids(group) == [1, 2]
    cgroup.thaw(group)
    assert (group / "cgroup.freeze").read_text() == "0"


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOENT])
def test_one_that_goes_meanwhile_is_no_failure(
    group: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(Path, "write_text", failing(number))
    monkeypatch.setattr(Path, "read_text", failing(number))
    cgroup.thaw(group)
    assert cgroup.pids(group) == []


def test_what_else_goes_wrong_is_said(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        cgroup.thaw(group)
