"""Whether a Prefect API is configured is found out without Prefect, unless one of its files names it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from flows import scheduler

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory and a home of Prefect's that are empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    for name in ("PREFECT_API_URL", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports Prefect's settings fails."""
    monkeypatch.setitem(sys.modules, "prefect.settings", None)


@pytest.mark.usefixtures("unasked")
def test_where_nothing_names_prefect_it_is_not_asked(tmp_path: Path) -> None:
    assert scheduler.is_configured() is False
    (tmp_path / "work" / "pyproject.toml").write_text("[project]\nname = 'mine'\n")
    (tmp_path / "work" / ".env").mkdir()
    assert scheduler.is_configured() is False


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize(("address", "configured"), [("http://127.0.0.1:4200/api", True), ("", False)])
def test_the_environment_has_the_first_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, configured: bool
) -> None:
    (tmp_path / "work" / "prefect.toml").write_text("# prefect\n")
    monkeypatch.setenv("PREFECT_API_URL", address)
    assert scheduler.is_configured() is configured


def test_where_a_file_names_prefect_it_is_asked(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    (tmp_path / "work" / "prefect.toml").write_text("# prefect\n")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        assert scheduler.is_configured() is True
    with temporary_settings({PREFECT_API_URL: None}):
        assert scheduler.is_configured() is False
