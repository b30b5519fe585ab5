"""Where a bind mount lies at the destination, and what stands in its way."""

from __future__ import annotations

from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from parties_at_hand import AtHand

from cli.options import read_options
from sealift.errors import UnusableInput
from sealift.migration.binds import Binds, pair
from sealift.migration.checks import container
from sealift.migration.checks.finding import Answer
from sealift.migration.checks.inspection import Endpoints, Inspection
from sealift.migration.parties import Side
from sealift_agent.protocol import DescribePaths, DescribeVolumes, PathFound

if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORY, FILE = PathFound("directory"), PathFound("file", digest="ab")
MISSING = PathFound("missing")


def binds(*pairs: str, as_they_are: bool = False) -> Binds:
    return Binds(tuple(map(pair, pairs)), as_they_are)


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/srv/shop", "/mnt/shop"),
        ("/srv/shop/conf/app.conf", "/mnt/shop/conf/app.conf"),
        ("/srv/shop/data", "/data"),
        ("/srv/shop/data/1", "/data/1"),
        ("/srv/shopping", None),
        ("/srv", None),
    ],
)
def test_a_pair_covers_all_beneath_it_and_the_narrowest_is_taken(path: str, there: str | None) -> None:
    assert binds("/srv/shop=/mnt/shop", "/srv/shop/data=/data").target(path) == there


def test_an_option_goes_before_the_inventory() -> None:
    hosts: Mapping[str, Any] = {
        "a": SimpleNamespace(binds={"shop": "/srv/shop", "here": "/srv/here"}),
        "b": SimpleNamespace(binds={"shop": "/mnt/shop", "there": "/srv/there"}),
    }
    inventory = cast("Any", SimpleNamespace(host=hosts.__getitem__))
    named = Binds.of(inventory, "a", "b", (), as_they_are=False)
    assert (named.target("/srv/shop"), named.target("/srv/here")) == ("/mnt/shop", None)
    given = Binds.of(inventory, "a", "b", ("/srv/shop=/elsewhere",), as_they_are=True)
    assert (given.target("/srv/shop"), given.target("/srv/here")) == ("/elsewhere", "/srv/here")


@pytest.mark.parametrize("text", ["/a", "a=/b", "/a=b", "/a/../b=/c", "=/b", "/a=/b/.."])
def test_what_is_no_pair_is_said_with_how_to_write_it(text: str) -> None:
    with pytest.raises(UnusableInput, match=r"--bind: .*write it as /path/at/the/source="):
        read_options(bind=[text])
    assert read_options(bind=["/a=/b=c"]).bind == ("/a=/b=c",)
    assert pair("/a=/b=c") == (PurePosixPath("/a"), PurePosixPath("/b=c"))


def found(places: Binds, here: dict[str, PathFound], there: PathFound = DIRECTORY) -> list[str]:
    """What is against a container with these bind mounts, where `there` lies at all of their places."""
    source, destination = AtHand(), AtHand()
    source.answer(DescribePaths, list(here.values()))
    source.answer(DescribeVolumes, {})
    destination.answer(DescribePaths, lambda order: [there] * len(order.paths))
    destination.answer(DescribeVolumes, {})
    mounts = [{"Type": "bind", "Source": path, "Destination": f"/in{path}"} for path in here]
    endpoints = Endpoints(
        cast("Any", None),
        "box",
        Side("a", cast("Any", None), None, cast("Any", source)),
        Side("b", cast("Any", None), None, cast("Any", destination)),
        "b",
        AtHand(),
        binds=places,
    )
    described = {"Mounts": mounts, "HostConfig": {}}
    inspection = Inspection(
        described, cast("Any", SimpleNamespace(mounts={})), cast("Any", None), cast("Any", None)
    )
    return [str(one) for one in container.mounts(endpoints, inspection) if one.answer is Answer.NO]


def test_what_belongs_to_the_host_is_refused_by_name() -> None:
    special = {"/var/run/docker.sock": "socket", "/dev/fuse": "device", "/proc": "kernel", "/run/p": "pipe"}
    against = found(binds(as_they_are=True), {path: PathFound(kind) for path, kind in special.items()})
    for path, said in zip(special, against, strict=True):
        assert f"the bind mount {path} is " in said
        assert "start the container without it" in said
    (root,) = found(binds(as_they_are=True), {"/": DIRECTORY})
    assert "the host's root" in root
    (gone,) = found(binds(as_they_are=True), {"/srv/gone": MISSING})
    assert "not there any more" in gone


def test_without_a_place_there_each_way_to_name_one_is_said() -> None:
    (said,) = found(binds(), {"/srv/a": DIRECTORY})
    assert "the bind mount /srv/a has no counterpart at b" in said
    assert "`--bind /srv/a=PATH`" in said
    assert "`--binds-as-they-are`" in said


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (MISSING, ""),
        (PathFound("directory", empty=True), ""),
        (DIRECTORY, "`--bind /srv/a=/srv/a` replaces it"),
        (FILE, "at /srv/a lies a file, and the bind mount is a directory"),
    ],
)
def test_the_same_path_is_taken_only_where_nothing_is_lost_by_it(there: PathFound, why: str) -> None:
    against = found(binds(as_they_are=True), {"/srv/a": DIRECTORY}, there)
    assert [why in said for said in against] == ([True] if why else [])


def test_a_file_of_the_same_content_is_not_lost() -> None:
    assert not found(binds(as_they_are=True), {"/etc/localtime": FILE}, FILE)
    (said,) = found(binds(as_they_are=True), {"/etc/app": FILE}, PathFound("file", digest="cd"))
    assert "with other content" in said


def test_what_somebody_has_named_may_be_replaced_but_must_be_there() -> None:
    assert not found(binds("/srv/a=/b"), {"/srv/a": DIRECTORY})
    (said,) = found(binds("/srv/a=/b"), {"/srv/a": FILE}, MISSING)
    assert "the file /b for a bind mount is missing" in said
    assert "`touch /b`" in said
    (said,) = found(binds("/srv/a=/"), {"/srv/a": DIRECTORY})
    assert "would replace the root" in said
