"""The four tasks of a cutover, all under way before the hosts are armed. They end when it is over."""

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
    watchers = [step.submit(cutover) for step in (transfer, restore, network_switch)]
    return [final_dump.submit(cutover, len(watchers)), *watchers]
