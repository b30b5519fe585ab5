"""Room at both hosts, counted before anything is moved."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from test_findings import HERE, QUIET

from sealift.migration.checks import hosts
from sealift.migration.checks.finding import Answer, Resource
from sealift.migration.checks.inspection import Inspection
from sealift_agent.protocol import FindLayer, TooDeep

if TYPE_CHECKING:
    from sealift.migration.checks.finding import Finding

CONTAINER = {"Id": "box", "Image": "sha256:1", "Mounts": []}
MIB = 1 << 20


def found(
    unlinked_bytes: int, *, post_copy: bool = False, memory_bytes: int = 0, **there: int
) -> list[Finding]:
    """What is said against a container of 20 MB and one file without a name, between hosts with 1 GiB of each."""
    answers = {TooDeep: [], FindLayer: "/upper"}
    facts = SimpleNamespace(call=lambda order: answers.get(type(order), 0))
    docker = SimpleNamespace(inspect_image=lambda _: {"Id": CONTAINER["Image"]})
    endpoints: Any = SimpleNamespace(
        post_copy=post_copy,
        source=SimpleNamespace(name="source", facts=facts),
        destination=SimpleNamespace(name="destination", docker=docker),
    )
    uses = replace(QUIET, unlinked={"/f (python3, pid 7)": unlinked_bytes} if unlinked_bytes else {})
    uses = replace(uses, memory_bytes=memory_bytes or uses.memory_bytes)
    inspection = Inspection(CONTAINER, uses, HERE, replace(HERE, **there))
    every = hosts.space(endpoints, inspection)
    return [one for one in every if one.resource is Resource.SPACE and one.answer is Answer.NO]


@pytest.mark.parametrize(("post_copy", "fits"), [(True, True), (False, False)])
def test_memory_is_asked_for_once_where_its_pages_are_in_no_images(*, post_copy: bool, fits: bool) -> None:
    room = {"memory_available_bytes": 1500 * MIB, "disk_free_bytes": 4 << 30}
    assert (found(0, post_copy=post_copy, memory_bytes=1000 * MIB, **room) == []) is fits


def test_a_quiet_container_has_room() -> None:
    assert found(0) == []
    assert found(100 * MIB) == []


@pytest.mark.parametrize(
    ("unlinked_mib", "there", "host"),
    [
        (1000, {"memory_available_bytes": 4 << 30, "disk_free_bytes": 4 << 30}, "source"),
        (500, {"disk_free_bytes": 4 << 30}, "destination"),
        (500, {"memory_available_bytes": 4 << 30, "disk_free_bytes": 400 * MIB}, "destination"),
    ],
)
def test_files_without_a_name_need_room_in_the_images_and_again(
    unlinked_mib: int, there: dict[str, int], host: str
) -> None:
    assert {one.host for one in found(unlinked_mib * MIB, **there)} == {host}
