"""The estimate: dirty rate and link sampled for a moment, and what each strategy would take by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.errors import SealiftError
from sealift.migration import history
from sealift.migration.estimate import Conditions, Dirtying, predict
from sealift.model import Estimate, Strategy
from sealift_agent import protocol

if TYPE_CHECKING:
    from sealift.migration.checks.scene import Look, Scene

PRE_DUMPED = (
    "unknown: a migration is under way on this host, whose pre-dump lives by the marks of dirty pages"
)


def survey(scene: Scene, look: Look, *, bandwidth: int | None, max_rounds: int) -> Estimate:
    """Sample for a moment, and predict for every strategy that can be had. `bandwidth` in bytes a second."""
    endpoint, problem = _endpoint(scene)
    found = scene.source.facts.call(
        protocol.Survey(look.container["Id"], look.here["dirty_tracking"], endpoint)
    )
    measured = found["link_bytes_s"] or None
    problem = found["link_problem"] or problem
    constants = history.recall(scene.inventory, scene.source.name, scene.destination_name)
    dirtying = Dirtying(found["dump_bytes"], [(seconds, amount) for seconds, amount in found["points"]])
    link = measured or bandwidth
    predictions = []
    if link is not None and look.there is not None:
        given = Conditions(
            dirtying=dirtying,
            file_bytes=look.file_bytes + look.image_bytes,
            link=link,
            live=min(link, bandwidth or link),
            floor_ms=constants.floor_ms,
            fixed_ms=constants.fixed_ms,
            lazy=look.there["lazy"],
            max_rounds=max_rounds,
        )
        predictions = [predict(strategy, given) for strategy in _to_be_had(look, dirtying)]
    return Estimate(
        memory_bytes=dirtying.memory_bytes,
        dirty_bytes_s=dirtying.bytes_s,
        dirty_how=found["how"] or PRE_DUMPED,
        link_bytes_s=link,
        sampled_bytes=found["link_sent_bytes"],
        streams=found["link_streams"],
        link_how="measured" if measured else "asked for" if bandwidth else f"unknown: {problem}",
        floor_ms=constants.floor_ms,
        fixed_ms=constants.fixed_ms,
        learned=constants.learned,
        predictions=predictions,
    )


def _endpoint(scene: Scene) -> tuple[protocol.Endpoint | None, str]:
    """Where the destination waits for a measurement, or why it does not."""
    if scene.destination is None:
        return None, "the destination could not be looked at"
    address = str(scene.inventory.host(scene.destination_name).tunnel_address)
    try:
        return scene.destination.facts.call(protocol.ReceiveRate(address)), ""
    except SealiftError as failed:
        return None, failed.message


def _to_be_had(look: Look, dirtying: Dirtying) -> list[Strategy]:
    """What the hosts can do, the least risky first."""
    found = [Strategy.STOP_AND_COPY]
    if look.here["dirty_tracking"] and dirtying.points:
        found.append(Strategy.PRE_COPY)
    if look.here["lazy"] and look.there is not None and look.there["lazy"]:
        found.append(Strategy.POST_COPY)
    return found
