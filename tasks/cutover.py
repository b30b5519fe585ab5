"""The four tasks of a cutover, under way before the freeze: each waits for the one before, and all only watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.final_dump import final_dump
from tasks.network_switch import network_switch
from tasks.restore import restore
from tasks.transfer import transfer

if TYPE_CHECKING:
    from sealift.migration.cutover import Cutover


def under_way(cutover: Cutover) -> list[Any]:
    """Submit them. Returns their futures, in the order of the protocol."""
    chain: list[Any] = []
    for step in (final_dump, transfer, restore, network_switch):
        chain.append(step.submit(cutover, wait_for=chain[-1:]))  # type: ignore[call-overload]
    return chain
