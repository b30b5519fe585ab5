"""The container's image: what of it is sent, how much room it takes, and what happens where the rest is not loaded."""

from __future__ import annotations

from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import docker
import pytest
from parties_at_hand import AtHand, Three

from sealift.errors import CommandFailed
from sealift.migration import image
from sealift.migration.checks import hosts
from sealift.migration.checks.finding import Answer
from sealift.migration.checks.inspection import Endpoints, Inspection
from sealift.migration.parties import Side
from sealift.migration.request import Options
from sealift.migration.sync import Sync
from sealift_agent.protocol import (
    CountLayers,
    Endpoint,
    FindLayer,
    ImageSent,
    LayerBytes,
    ReceiveImage,
    SendImage,
    TooDeep,
    TreeBytes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE, SMALL, NONE, TOP = (f"sha256:{number}" for number in "1234")
MIB = 1 << 20


class Docker:
    """A Docker with some images, each by its id."""

    def __init__(
        self, images: dict[str, dict[str, Any]] | None = None, version: str = "26.1.5+dfsg1"
    ) -> None:
        self.images = images or {}
        self._version = version

    def version(self) -> dict[str, str]:
        return {"Version": self._version}

    def inspect_image(self, name: str) -> dict[str, Any]:
        for identity, found in self.images.items():
            if name in {identity, *found["RepoTags"]} or f"{name}:latest" in found["RepoTags"]:
                return {"Id": identity, **found}
        raise docker.errors.ImageNotFound(name)


def side(docker: Docker, agent: AtHand, name: str = "source") -> Side:
    return Side(name, cast("Any", None), docker, cast("Any", agent))


def described(*layers: str, tags: Sequence[str] = ("box:1",), size: int = 857 * MIB) -> dict[str, Any]:
    return {"RootFS": {"Layers": list(layers)}, "Size": size, "RepoTags": list(tags)}


@pytest.mark.parametrize(
    ("layers", "count", "without"),
    [
        ([BASE, SMALL], 1, {BASE}),
        ([BASE, SMALL], 0, set()),
        ([BASE, NONE, SMALL, NONE], 2, {BASE}),  # its file is one for both
        ([BASE, NONE, NONE, SMALL], 3, {BASE, NONE}),
    ],
)
def test_what_is_there_each_time_is_left_out(layers: list[str], count: int, without: set[str]) -> None:
    there = AtHand()
    there.answer(CountLayers, count)
    found = image.left_out(described(*layers), side(Docker(), AtHand()), side(Docker(), there))
    assert set(found) == without
    assert there.orders == [CountLayers(layers)]


def test_an_archive_that_does_not_name_layers_by_digest_is_sent_whole() -> None:
    there = AtHand()
    there.answer(CountLayers, 1)
    old = side(Docker(version="24.0.7"), AtHand())
    assert image.left_out(described(BASE, SMALL), old, side(Docker(), there)) == ()


def space(there: Docker, free_mib: int, here_mib: int = 2000, count: int = 1) -> tuple[Inspection, list[str]]:
    """Room for a container of an image of 857 MiB, whose top layer has 60 kB; and what is against it."""
    source, destination = AtHand(), AtHand()
    source.answer(FindLayer, "/upper")
    source.answer(TreeBytes, 0)
    source.answer(TooDeep, [])
    source.answer(LayerBytes, [857 * MIB - 60_000, 60_000])
    destination.answer(CountLayers, count)
    container = {"Id": "box", "Image": "sha256:id", "Mounts": []}
    roomy = {"memory_available_bytes": 1 << 40}
    inspection = Inspection(
        container,
        cast("Any", SimpleNamespace(memory_bytes=0, unlinked={})),
        cast("Any", SimpleNamespace(disk_free_bytes=here_mib * MIB, **roomy)),
        cast("Any", SimpleNamespace(disk_free_bytes=free_mib * MIB, **roomy)),
    )
    endpoints = Endpoints(
        cast("Any", None),
        "box",
        side(Docker({"sha256:id": described(BASE, SMALL)}), source),
        side(there, destination, "destination"),
        "destination",
        AtHand(),
    )
    found = hosts.space(endpoints, inspection)
    return inspection, [one.host for one in found if one.answer is Answer.NO]


def test_room_is_asked_for_what_is_sent_only() -> None:
    inspection, against = space(Docker(), free_mib=80)
    assert (inspection.image_bytes, inspection.left_out) == (60_000, (BASE,))
    assert against == []


def test_docker_needs_room_for_an_image_twice_at_the_destination() -> None:
    assert space(Docker(), free_mib=64 + 857 + 800, count=0)[1] == ["destination"]
    inspection, against = space(Docker(), free_mib=64 + 2 * 857, count=0)
    assert inspection.image_bytes == 857 * MIB
    assert against == []


def test_docker_needs_room_to_save_all_of_an_image_at_the_source_whatever_is_sent() -> None:
    assert space(Docker(), free_mib=80, here_mib=800)[1] == ["source"]
    there = Docker({"sha256:id": described(BASE, SMALL)})
    assert space(there, free_mib=80, here_mib=1)[1] == [], "nothing is saved"


class Sent:
    """A sync whose destination loads what it gets as `loads` says: the id of the image, None to refuse it."""

    def __init__(self, *loads: str | None, name: str = "box:1", tags: Sequence[str] = ("box:1",)) -> None:
        self.three, self.loads, self.there = Three(), list(loads), Docker()
        self.image = described(BASE, SMALL, tags=tags)
        here = Docker({"sha256:id": self.image})
        source, destination = self.three.parties.source, self.three.parties.destination
        object.__setattr__(source.side, "docker", here)
        object.__setattr__(destination.side, "docker", self.there)
        self.three.source.answer(SendImage, self.send)
        self.three.destination.answer(ReceiveImage, Endpoint("10.78.0.20", 9, "token"))
        plan = self.three.ready.plan
        for field, value in (
            ("image_at_destination", False),
            ("left_out", (BASE,)),
            ("container", {"Image": "sha256:id", "Config": {"Image": name}}),
        ):
            object.__setattr__(plan, field, value)
        inventory = SimpleNamespace(host=lambda _: SimpleNamespace(tunnel_address=IPv4Address("10.78.0.20")))
        request = SimpleNamespace(destination="destination", options=Options())
        parties, journal = self.three.parties, self.three.journal
        self.sync = Sync(cast("Any", request), cast("Any", inventory), parties, journal, plan)

    def send(self, order: SendImage) -> ImageSent:
        identity = self.loads.pop(0)
        if identity is None:
            return ImageSent(10, "Docker refuses to load the image: no such file")
        if identity == "fails":
            raise CommandFailed("what Docker saves of the image is no whole archive", host="source")
        self.there.images[identity] = self.image
        return ImageSent(10 if order.left_out else 1000)

    @property
    def orders(self) -> list[list[str]]:
        return [cast("SendImage", order).left_out for order in self.three.source.got(SendImage)]


def test_an_image_is_sent_without_what_is_there() -> None:
    sent = Sent("sha256:id")
    assert sent.sync.send_image() == 10
    assert sent.orders == [[BASE]]


@pytest.mark.parametrize(("first", "sent_bytes"), [(None, 1010), ("sha256:another", 1010), ("fails", 1000)])
def test_an_image_that_is_not_loaded_so_is_sent_whole_once(first: str | None, sent_bytes: int) -> None:
    sent = Sent(first, "sha256:id")
    assert sent.sync.send_image() == sent_bytes
    assert sent.orders == [[BASE], []]


@pytest.mark.parametrize(
    ("second", "said"), [(None, "no such file"), ("sha256:another", "another id"), ("fails", "no whole")]
)
def test_an_image_that_is_not_loaded_whole_either_ends_the_sync(second: str | None, said: str) -> None:
    sent = Sent(None, second)
    with pytest.raises(CommandFailed, match=said):
        sent.sync.send_image()
    assert sent.orders == [[BASE], []]


@pytest.mark.parametrize(
    ("name", "tags", "saved"),
    [
        ("box", ["box:latest", "box:1"], "box:latest"),  # by "box" all images of that name would be saved
        ("box:1", ["box:1"], "box:1"),
        ("lost:1", ["box:1"], "sha256:id"),
    ],
)
def test_one_image_is_saved_by_its_name(name: str, tags: list[str], saved: str) -> None:
    sent = Sent("sha256:id", name=name, tags=tags)
    sent.sync.send_image()
    assert [cast("SendImage", order).reference for order in sent.three.source.got(SendImage)] == [saved]
