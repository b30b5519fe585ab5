"""Groups that a container has made: what comes from the other side is checked before anything is made."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent import cgroup, inner_groups, proc, processes
from sealift_agent.messages import Misunderstood

if TYPE_CHECKING:
    from pathlib import Path

ID = "0123456789abcdef" * 4


def never() -> int:
    raise AssertionError("something was made")


@pytest.mark.parametrize(
    "groups",
    [
        "all",
        [["memory", "made", {}]],
        [["memory", "../../host", {}, []]],
        [["memory", "/host", {}, []]],
        [["memory", "a\0b", {}, []]],
        [["..", "made", {}, []]],
        [["memory/docker", "made", {}, []]],
        [["memory", "made", {"release_agent": "/bin/sh"}, []]],
        [["memory", "made", {"pids.max": 7}, []]],
        [["memory", "made", [], []]],
        [["memory", "made", {}, [0]]],
        [["memory", "made", {}, [True]]],
        [["memory", "made", {}, ["1"]]],
        [["memory", "made", {}, 1]],
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, groups: Any) -> None:
    (tmp_path / inner_groups.FILE).write_text(json.dumps({"groups": groups}))
    with pytest.raises(Misunderstood):
        inner_groups.put_back(tmp_path, never)


def test_no_list_is_nothing_to_do(tmp_path: Path) -> None:
    inner_groups.write(tmp_path, [])
    assert not list(tmp_path.iterdir())
    inner_groups.put_back(tmp_path, never)


def test_a_process_that_has_ended_by_then_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "memory/docker" / ID
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "paths", lambda _: {"memory": f"/docker/{ID}"})
    put: list[tuple[int, str]] = []
    monkeypatch.setattr(cgroup, "put", lambda pid, place: put.append((pid, place.name)))
    here = proc.number_inside(os.getpid())
    listed = [["memory", "made", {}, [here, here + 1_000_000]]]
    (tmp_path / inner_groups.FILE).write_text(json.dumps({"groups": listed}))
    inner_groups.put_back(tmp_path, os.getpid)
    assert put == [(os.getpid(), "made")]


@pytest.mark.parametrize(
    ("first", "process", "outside"),
    [
        (f"/docker/{ID}", f"/docker/{ID}", set()),
        (f"/docker/{ID}", f"/docker/{ID}/made", set()),
        (f"/docker/{ID}/init.scope", f"/docker/{ID}/other", set()),
        (f"/docker/{ID}", f"/docker/{ID}.stopped", set()),
        (f"/docker/{ID}", f"/docker/{ID}-made", {f"/docker/{ID}-made"}),
        (f"/system.slice/docker-{ID}.scope/a", f"/system.slice/docker-{ID}.scope", set()),
        (
            f"/system.slice/docker-{ID}.scope",
            "/system.slice/docker.service",
            {"/system.slice/docker.service"},
        ),
    ],
)
def test_only_groups_outside_of_the_container_s_own_are_told(
    first: str, process: str, outside: set[str]
) -> None:
    assert processes._groups({"pids": first}, {"pids": process}) == outside


def test_one_that_is_ending_is_in_no_group() -> None:
    own = {"pids": f"/docker/{ID}", "memory": f"/docker/{ID}"}
    assert processes._groups(own, {"pids": "/", "memory": "/"}) == set()
    assert processes._groups(own, {"pids": "/", "memory": "/", "": f"/docker/{ID}"}) == set()
    assert processes._groups(own, {"pids": "/", "memory": f"/docker/{ID}"}) == {"/"}
