"""Preflight: everything that would stop the migration, found before anything is touched, and all of it at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sealift.errors import Refused
from sealift.migration.checks import container, hosts, processes
from sealift.migration.checks.finding import Answer, Finding, Resource
from sealift.migration.checks.scene import Look, Scene
from sealift.migration.choice import choose
from sealift.migration.survey import survey
from sealift.model import Step
from sealift_agent.protocol import DescribeContainer, DescribeHost, Guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.migration.session import Session

LAZY_FROM_BYTES = 32 << 20
"""Less memory is read in faster before the start than page by page behind it."""


def preflight(session: Session) -> list[str]:
    """Look at the container and both hosts. Returns warnings; Refused carries every reason."""
    request, found = session.request, session.found
    scene = Scene(
        session.inventory,
        request.container,
        session.source,
        session.destination,
        request.destination,
        session.gateway,
    )
    look = examine(scene)
    refuse(request.container, look.findings)
    found.container, found.address = look.container, look.address
    found.memory_bytes, found.image_at_destination = look.uses["memory_bytes"], look.image_there
    both = {request.source: look.here, request.destination: look.there or {}}
    missing = [name for name, facts in both.items() if not facts["lazy"]]
    found.estimate = survey(
        scene, look, bandwidth=request.options.bandwidth, max_rounds=request.options.max_rounds
    )
    found.estimated_ns = time.monotonic_ns()
    found.choice = choose(
        request.options.strategy,
        look.here["dirty_tracking"],
        missing,
        estimate=found.estimate,
        max_downtime_s=request.options.max_downtime,
    )
    found.lazy_restore = both[request.destination]["lazy"] and found.memory_bytes >= LAZY_FROM_BYTES
    found.warnings += container.warnings(look.container)
    return found.warnings


def examine(scene: Scene) -> Look:
    """Every finding, in the order of the resources. Looks at hosts and processes, and changes nothing."""
    described = container.describe(scene)
    with ThreadPoolExecutor(4) as pool:
        here = pool.submit(scene.source.facts.call, DescribeHost())
        there = pool.submit(scene.destination.facts.call, DescribeHost()) if scene.destination else None
        overlaps = pool.submit(hosts.overlaps, scene)
        guarded = pool.submit(scene.gateway.call, Guarded())
        uses = scene.source.facts.call(DescribeContainer(described["Id"]))
    look = Look(described, uses, here.result(), there.result() if there else None)
    found = [
        *container.network(scene, look),
        *container.configuration(scene, look),
        *processes.judge(scene.source.name, uses, look.here, look.there),
        *hosts.source(scene.source, look.here, uses),
        *container.taken(scene, look),
        *hosts.gateway(guarded.result()),
        *overlaps.result(),
        *container.mounts(scene, look),
        *hosts.space(scene, look),
    ]
    if scene.destination is None:
        found += _not_looked_at(scene)
    elif look.there is not None:
        found += hosts.destination(scene.destination, look.here, look.there)
    order = list(Resource)
    look.findings = sorted(_without_contradictions(found), key=lambda one: order.index(one.resource))
    return look


def refuse(name: str, findings: Sequence[Finding]) -> None:
    """Refused, with every reason, if there is a `no` among the findings."""
    against = [str(finding) for finding in findings if finding.answer is Answer.NO]
    if against:
        raise Refused(
            f"{name} can't be migrated: " + "; ".join(against), reasons=tuple(against), step=Step.PREFLIGHT
        )


def _without_contradictions(findings: Sequence[Finding]) -> list[Finding]:
    """A `yes` goes where another check says otherwise of the same resource of the same host."""
    doubted = {(one.host, one.resource) for one in findings if one.answer is not Answer.YES}
    return [
        one for one in findings if one.answer is not Answer.YES or (one.host, one.resource) not in doubted
    ]


def _not_looked_at(scene: Scene) -> list[Finding]:
    resources = [Resource.CPU, Resource.KERNEL, Resource.NETWORK, Resource.CRIU, Resource.DOCKER]
    resources += [Resource.SPACE, Resource.NAME]
    remedy = f"`sealift attest {scene.destination_name} --provision`, then check again"
    return [
        Finding(resource, Answer.UNKNOWN, scene.destination_name, "could not be looked at", remedy)
        for resource in resources
    ]
