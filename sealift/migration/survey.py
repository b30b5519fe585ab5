"""The estimate: sample dirty rate and link for a moment, and predict each strategy from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.errors import SealiftError
from sealift.migration import freeze_cost, history
from sealift.migration.estimate import Conditions, Dirtying, predict
from sealift.model import Estimate, Strategy
from sealift_agent import protocol

if TYPE_CHECKING:
    from sealift.migration.checks.inspection import Endpoints, Inspection

PRE_DUMPED = "unknown: a migration runs on this host, and its pre-dump needs the marks of dirty pages"


def survey(
    endpoints: Endpoints, inspection: Inspection, *, bandwidth: int | None, max_rounds: int
) -> Estimate:
    """Sample for a moment, and predict every possible strategy. `bandwidth` is in bytes a second."""
    endpoint, problem = _endpoint(endpoints)
    found = endpoints.source.facts.call(
        protocol.Survey(inspection.container["Id"], inspection.here.dirty_tracking, endpoint)
    )
    measured = found.link.bytes_s or None
    problem = found.link.problem or problem
    constants = history.recall(endpoints.inventory, endpoints.source.name, endpoints.destination_name)
    floor_ms = constants.factor * freeze_cost.floor_ms(inspection.uses)
    dirtying = Dirtying(
        found.memory.dump_bytes, [(point.seconds, point.dirty_bytes) for point in found.memory.points]
    )
    link = measured or bandwidth
    predictions = []
    if link is not None and inspection.there is not None:
        given = Conditions(
            dirtying=dirtying,
            file_bytes=inspection.file_bytes + inspection.image_bytes,
            link=link,
            live=min(link, bandwidth or link),
            floor_ms=floor_ms,
            fixed_ms=constants.fixed_ms,
            lazy=inspection.there.lazy,
            max_rounds=max_rounds,
        )
        predictions = [predict(strategy, given) for strategy in _to_be_had(inspection, dirtying)]
    return Estimate(
        memory_bytes=dirtying.memory_bytes,
        dirty_bytes_s=dirtying.bytes_s,
        dirty_how=found.memory.how or PRE_DUMPED,
        link_bytes_s=link,
        sampled_bytes=found.link.sent_bytes,
        streams=found.link.streams,
        link_how="measured" if measured else "asked for" if bandwidth else f"unknown: {problem}",
        floor_ms=floor_ms,
        fixed_ms=constants.fixed_ms,
        learned=constants.learned,
        predictions=predictions,
    )


def _endpoint(endpoints: Endpoints) -> tuple[protocol.Endpoint | None, str]:
    """The destination's endpoint for a measurement, or the reason why there is none."""
    if endpoints.destination is None:
        return None, "the destination could not be examined"
    address = str(endpoints.inventory.host(endpoints.destination_name).tunnel_address)
    try:
        return endpoints.destination.facts.call(protocol.ReceiveRate(address)), ""
    except SealiftError as failed:
        return None, failed.message


def _to_be_had(inspection: Inspection, dirtying: Dirtying) -> list[Strategy]:
    """What the hosts can do, the least risky first."""
    found = [Strategy.STOP_AND_COPY]
    if inspection.here.dirty_tracking and dirtying.points:
        found.append(Strategy.PRE_COPY)
    if inspection.here.lazy and inspection.there is not None and inspection.there.lazy:
        found.append(Strategy.POST_COPY)
    return found
