"""Arm both hosts and the gateway, so that the cutover needs only the order `go` and no controller."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sealift.migration import predump, sync
from sealift.model import Strategy
from sealift_agent.constants import BRIDGE
from sealift_agent.protocol import (
    ArmDestination,
    ArmSource,
    CheckPeer,
    Decide,
    Decider,
    LogPlace,
    Move,
    ReadPages,
    RestartPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.migration.journal import Journal
    from sealift.migration.parties import Parties
    from sealift.migration.request import Request
    from sealift.migration.results import Memory, Ready

LOG_BEHIND_BYTES = 8 << 20
"""A log with more new bytes is copied again before the hosts are armed, since printing it again takes longer."""

KEY_BYTES = 32
"""Bytes of the key that authenticates questions to the gateway and its answers (`sealift_agent.authenticated`)."""


@dataclass(frozen=True)
class Armed:
    """`decide` is the gateway's order, for a new agent of the gateway.

    `memory` has the last round before the freeze.
    """

    decide: Decide
    memory: Memory


def arm(
    request: Request, parties: Parties, journal: Journal, ready: Ready, members: Sequence[str] = ()
) -> Armed:
    """Get the gateway and both hosts ready. After that they need only the order `go`.

    `members` are the migrations that have one decision, including this one. Raises what failed; then nothing is frozen.
    """
    plan, copy, inventory = ready.plan, ready.copy, ready.destination.inventory
    source, destination = parties.source.agent, parties.destination.agent
    move = Move(
        migration=journal.migration,
        address=plan.address,
        origin=inventory.host(request.source).wireguard_key or "",
        peer=inventory.host(request.destination).wireguard_key or "",
        host=request.destination,
    )
    parties.gateway.call(CheckPeer(move.peer))
    policy = source.call(RestartPolicy(plan.container["Id"]))
    journal.note_armed(policy)
    where, token, key = (
        str(inventory.gateway.tunnel_address),
        secrets.token_hex(16),
        secrets.token_hex(KEY_BYTES),
    )
    asked = Decide(where, token, key, move, list(members))
    port = parties.gateway.call(asked)
    decider = Decider(where, port, token, key, group=bool(members))
    log = sync.send_log(source, copy.log, LOG_BEHIND_BYTES).log
    post_copy = plan.choice.strategy == Strategy.POST_COPY
    destination.call(
        ArmDestination(
            container=copy.container,
            gateway=decider,
            address=plan.address,
            bridge=BRIDGE,
            log=LogPlace(log.path, log.marked) if log else None,
            descriptors=list(copy.descriptors),
            lazy=post_copy or plan.lazy_restore,
            restart_policy=policy,
        )
    )
    rounds = predump.Rounds(request, plan, source, destination, ready.memory)
    rounds.catch_up()
    pages = destination.call(ReadPages()) if post_copy else rounds.start_page_server("final")
    source.call(
        ArmSource(
            gateway=decider,
            address=plan.address,
            bridge=BRIDGE,
            pages_port=pages,
            post_copy=post_copy,
            restart_policy=policy,
        )
    )
    return Armed(replace(asked, port=port), rounds.result())
