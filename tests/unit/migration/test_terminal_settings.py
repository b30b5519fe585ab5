"""A container with a terminal, judged by its settings: it moves, if the destination can make the library for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sealift.migration.checks import container
from sealift.migration.checks.finding import Answer, Resource

QUIET: dict[str, Any] = {"Privileged": False, "Devices": [], "LogConfig": {"Type": "json-file"}}


def described(*, terminal: bool) -> dict[str, Any]:
    return {"HostConfig": QUIET, "Config": {"Tty": terminal}}


@pytest.mark.parametrize(
    ("terminal", "interposable", "refused"), [(True, True, False), (True, False, True), (False, False, False)]
)
def test_a_terminal_needs_the_library_at_the_destination(
    *, terminal: bool, interposable: bool, refused: bool
) -> None:
    endpoints: Any = SimpleNamespace(source=SimpleNamespace(name="source"), destination_name="there")
    there = SimpleNamespace(interposable=interposable)
    inspection: Any = SimpleNamespace(container=described(terminal=terminal), there=there)
    found = container.configuration(endpoints, inspection)
    assert [(one.resource, one.answer) for one in found] == [(Resource.TERMINALS, Answer.NO)] * refused
    assert all("tcc" in one.remedy for one in found)


def test_whoever_is_attached_is_told() -> None:
    assert any("docker attach" in warning for warning in container.warnings(described(terminal=True)))
    assert not container.warnings(described(terminal=False))
