"""Room in the kernel's pipes: raised for as long as anybody needs it, and then as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sealift_agent import limits
from sealift_agent.memory import pipes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BEFORE = {"pipe-user-pages-soft": 16384, "pipe-max-size": 1 << 20}


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Become one of several hosts that share one kernel's settings."""
    monkeypatch.setattr(limits, "capable", lambda: False)
    monkeypatch.setattr(pipes, "FS", tmp_path)
    for name, value in BEFORE.items():
        (tmp_path / name).write_text(str(value))

    def become(host: str) -> None:
        (tmp_path / host).mkdir(exist_ok=True)
        monkeypatch.setattr(pipes, "RECORD", tmp_path / host / "pipes.json")

    become("host")
    return become


def settings() -> dict[str, int]:
    return {name: int((pipes.FS / name).read_text()) for name in BEFORE}


@pytest.mark.usefixtures("enter")
def test_the_last_migration_of_a_host_puts_back_what_the_first_found() -> None:
    pipes.raise_limits("one")
    pipes.raise_limits("two")
    pipes.put_back("one")
    assert settings() == pipes.SETTINGS
    pipes.put_back("two")
    assert settings() == BEFORE


def test_two_hosts_on_one_kernel_leave_nothing_raised(enter: Callable[[str], None]) -> None:
    pipes.raise_limits("one")
    enter("another")
    pipes.raise_limits("two")
    enter("host")
    pipes.put_back("one")
    enter("another")
    pipes.put_back("two")
    assert settings() == BEFORE
