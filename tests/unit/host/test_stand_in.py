"""The process that stands for the container's first one: where it is when Docker hears of it, and afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sealift_agent import cgroup
from sealift_agent.destination.stand_in import StandIn
from sealift_agent.wire import AgentError

OWN = {"9": "", "cpu,cpuacct": "/host/agent", "name=systemd": "/host", "": "/unified/agent"}
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups and namespaces need root")


def spec() -> dict[str, Any]:
    return {"linux": {"cgroupsPath": f"/sealift-test-{os.getpid()}/box"}}


def here(path: str) -> Any:
    return SimpleNamespace(path=path)


def test_it_is_in_the_namespace_and_in_the_groups_and_back_in_the_agent_s_groups() -> None:
    before = cgroup.paths(os.getpid())
    stand_in = StandIn(here("/proc/self/ns/net"), spec())
    groups = cgroup.of_bundle(spec()["linux"]["cgroupsPath"])
    try:
        assert Path(f"/proc/{stand_in.pid}/comm").read_text() == "cat\n", "it has entered the namespace"
        assert all(cgroup.pids(group) == [stand_in.pid] for group in groups)
        stand_in.leave_groups()
        assert cgroup.paths(stand_in.pid) == before
        assert all(group.is_dir() for group in groups)
    finally:
        stand_in.end()
        for group in groups:
            group.rmdir()
            group.parent.rmdir()
    assert not Path(f"/proc/{stand_in.pid}").exists()


def test_one_that_cannot_enter_is_an_error_and_does_not_stay() -> None:
    with pytest.raises(AgentError, match="has not entered the network namespace"):
        StandIn(here("/nowhere"), spec())


@pytest.mark.parametrize(
    ("group", "own"),
    [
        ("cpu,cpuacct/docker/box", "cpu,cpuacct/host/agent"),
        ("systemd/docker/box", "systemd/host"),
        ("docker/box", "unified/agent"),
    ],
)
def test_the_agent_s_group_in_the_same_hierarchy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, own: str
) -> None:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    assert cgroup.beside(tmp_path / group, OWN) == tmp_path / own
