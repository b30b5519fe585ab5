"""Where a container's own files are: Docker says it, or containerd does, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent import docker_api, writable_layer
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = (
    "mount -t overlay overlay /nowhere -o workdir=/c/snapshots/3/work,upperdir=/c/snapshots/3/fs,"
    "lowerdir=/c/snapshots/2/fs:/c/snapshots/1/fs,index=off"
)


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    said: dict[str, Any] = {"Id": "f00"}
    monkeypatch.setattr(docker_api, "call", lambda *_: said)
    return said


@pytest.fixture
def ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `ctr` that says what was said on a host, if it is asked for the right snapshot."""
    program = tmp_path / "ctr"
    program.write_text(f'#!/bin/sh\n[ "$*" = "{{WORDS}}" ] && echo "{MOUNTS}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "containerd.sock").touch()
    monkeypatch.setattr(writable_layer, "SOCKETS", (tmp_path / "none", tmp_path / "containerd.sock"))
    words = f"--address {tmp_path}/containerd.sock --namespace moby snapshots --snapshotter overlayfs"
    program.write_text(program.read_text().replace("{WORDS}", f"{words} mounts /nowhere f00"))
    return program


def test_docker_says_it(described: dict[str, Any]) -> None:
    described["GraphDriver"] = {"Name": "overlay2", "Data": {"UpperDir": "/docker/diff"}}
    assert writable_layer.find("box") == "/docker/diff"


@pytest.mark.parametrize(
    "driver", [{"GraphDriver": {"Name": "overlayfs", "Data": None}}, {"Driver": "overlayfs"}]
)
def test_containerd_says_it(described: dict[str, Any], ctr: Path, driver: dict[str, Any]) -> None:
    described.update(driver)
    assert writable_layer.find("box") == "/c/snapshots/3/fs"


def test_another_store_is_named(described: dict[str, Any], ctr: Path) -> None:
    described["GraphDriver"] = {"Name": "btrfs", "Data": None}
    with pytest.raises(AgentError, match=r"kept by btrfs.*overlay2"):
        writable_layer.find("box")
