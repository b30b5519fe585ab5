"""The workloads' network on a host: made with what each version of Docker needs, and refused where it lacks that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sealift.errors import Refused
from sealift.host import prepare
from sealift.inventory import Network


class Docker:
    """Answers as Docker of that version does, with a network that has these options, or none."""

    def __init__(self, version: str, options: dict[str, str] | None) -> None:
        self._version, self._options = version, options
        self.made: list[dict[str, Any]] = []

    def networks(self, names: list[str]) -> list[dict[str, Any]]:
        return [] if self._options is None else [{"Name": "sealift", "Options": self._options}]

    def version(self) -> dict[str, str]:
        return {"Version": self._version}

    def create_network(self, name: str, **options: Any) -> None:
        self.made.append(options)


def prepared(monkeypatch: pytest.MonkeyPatch, version: str, options: dict[str, str] | None) -> Docker:
    docker = Docker(version, options)
    monkeypatch.setattr(prepare, "wait_for", lambda *_, **__: docker)
    prepare.docker_network(SimpleNamespace(name="here"), Network())  # type: ignore[arg-type]
    return docker


@pytest.mark.parametrize("version", ["26.1.5", "28.5.2"])
def test_it_is_made_for_what_comes_through_the_tunnel(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    (made,) = prepared(monkeypatch, version, None).made
    assert made["options"][prepare.TRUSTED] == "sealift-wg"


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("26.1.5", {}),
        ("27.5.1", {}),
        ("28.5.2", {prepare.TRUSTED: "sealift-wg"}),
        ("29.0.0", {prepare.TRUSTED: "eth3:sealift-wg"}),
    ],
)
def test_one_that_is_there_and_will_do(
    monkeypatch: pytest.MonkeyPatch, version: str, options: dict[str, str]
) -> None:
    assert prepared(monkeypatch, version, options).made == []


@pytest.mark.parametrize("options", [{}, {prepare.TRUSTED: "eth0"}])
def test_one_whose_packets_docker_drops_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    with pytest.raises(Refused, match="drops what comes through the tunnel") as refused:
        prepared(monkeypatch, "28.5.2", options)
    assert "docker network rm sealift" in str(refused.value)
