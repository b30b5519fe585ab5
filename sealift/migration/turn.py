"""Wait until the gateway admits this migration: the inventory limits how many run at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sealift_agent.protocol import Enter

if TYPE_CHECKING:
    from sealift.host.agents import Caller
    from sealift.inventory import Inventory
    from sealift.migration.request import Request

ASK_AGAIN_S = 0.2
"""Seconds between two questions of a waiting migration."""


def wait_for_turn(gateway: Caller, inventory: Inventory, request: Request) -> str | None:
    """Wait until the limits per host and per link allow one more. Returns a sentence if it had to wait."""
    limits, here, there = inventory.limits, request.source, request.destination
    places = {here: limits.per_host, there: limits.per_host, f"{here} to {there}": limits.per_link}
    began, waited = time.monotonic(), None
    while full := gateway.call(Enter(places)):
        waited = (
            f"waited {time.monotonic() - began:.0f} s for its turn: {' and '.join(full)} had as many migrations "
            "as the inventory's limits allow"
        )
        time.sleep(ASK_AGAIN_S)
    return waited
