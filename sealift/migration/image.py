"""The container's image: what of it the destination has, and what is sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sealift_agent.protocol import CountLayers, LayerBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.migration.parties import Side

NAMED_BY_DIGEST = 25
"""Since this version Docker names a layer in `docker save` by its digest; before, by one of what it was made of."""


def left_out(image: dict[str, Any], source: Side, destination: Side) -> tuple[str, ...]:
    """The layers of an image, as the source's Docker describes it, that need not be sent: the destination has them.

    That is, it has them on the same layers below. What is in the image more than once is in the archive only once: it
    is sent unless it is there each time.
    """
    if _major(source.docker.version()["Version"]) < NAMED_BY_DIGEST:
        return ()
    layers = image["RootFS"].get("Layers") or []
    count = destination.facts.call(CountLayers(layers))
    return tuple(sorted(set(layers[:count]) - set(layers[count:])))


def missing_bytes(image: dict[str, Any], source: Side, without: Sequence[str]) -> int:
    """How many bytes the image has on a disk but for those layers, as far as the source can say how large they are."""
    layers = image["RootFS"].get("Layers") or []
    if not without:
        return int(image["Size"])
    sizes = zip(layers, source.facts.call(LayerBytes(layers)), strict=True)
    return int(image["Size"]) - sum(size for layer, size in sizes if layer in without)


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found.group()) if found else 0
