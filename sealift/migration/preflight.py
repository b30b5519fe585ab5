"""The step preflight: find all reasons against the migration at once, before anything is changed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sealift.errors import Refused
from sealift.migration import freeze_cost
from sealift.migration.checks import container, hosts, processes, security
from sealift.migration.checks.finding import Answer, Finding, Resource
from sealift.migration.checks.inspection import Endpoints, Inspection
from sealift.migration.choice import choose
from sealift.migration.request import binds
from sealift.migration.results import Plan
from sealift.migration.survey import survey
from sealift.model import Step, Strategy
from sealift_agent.protocol import DescribeContainer, DescribeHost, Guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.inventory import Inventory
    from sealift.migration.parties import Parties
    from sealift.migration.request import Request

LAZY_FROM_BYTES = 32 << 20
"""Smaller memory is read faster before the start than page by page after it."""


def preflight(request: Request, inventory: Inventory, parties: Parties) -> Plan:
    """Examine the container and both hosts. Refused has every reason."""
    endpoints = Endpoints(
        inventory,
        request.container,
        parties.source.side,
        parties.destination.side,
        request.destination,
        parties.gateway,
        request.options.strategy is Strategy.POST_COPY,
        binds(inventory, request),
    )
    inspection = examine(endpoints)
    refuse(request.container, inspection.findings)
    here, there = inspection.here, inspection.there
    both = ((request.source, here), (request.destination, there))
    missing = [name for name, facts in both if facts is None or not facts.lazy]
    estimate = survey(
        endpoints, inspection, bandwidth=request.options.bandwidth, max_rounds=request.options.max_rounds
    )
    estimated_ns = time.monotonic_ns()
    choice = choose(
        request.options.strategy,
        here.dirty_tracking,
        missing,
        estimate=estimate,
        max_downtime_s=request.options.max_downtime,
    )
    memory_bytes = inspection.uses.memory_bytes
    return Plan(
        container=inspection.container,
        address=inspection.address,
        memory_bytes=memory_bytes,
        image_at_destination=inspection.image_there,
        choice=choice,
        estimate=estimate,
        estimated_ns=estimated_ns,
        cost_ms=freeze_cost.floor_ms(inspection.uses),
        lazy_restore=there is not None and there.lazy and memory_bytes >= LAZY_FROM_BYTES,
        streams=request.options.streams or estimate.streams,
        warnings=(*container.warnings(inspection.container), *processes.warnings(inspection.uses)),
        left_out=inspection.left_out,
    )


def examine(endpoints: Endpoints) -> Inspection:
    """All findings, in the order of the resources. Examines hosts and processes, and changes nothing."""
    described = container.describe(endpoints)
    with ThreadPoolExecutor(4) as pool:
        here = pool.submit(endpoints.source.facts.call, DescribeHost())
        there = (
            pool.submit(endpoints.destination.facts.call, DescribeHost()) if endpoints.destination else None
        )
        overlaps = pool.submit(hosts.overlaps, endpoints)
        guarded = pool.submit(endpoints.gateway.call, Guarded())
        facts = endpoints.source.facts.call(DescribeContainer(described["Id"]))
    inspection = Inspection(described, facts.uses, here.result(), there.result() if there else None)
    docker_here = endpoints.source.docker.info()
    found = [
        *container.network(endpoints, inspection),
        *container.configuration(endpoints, inspection),
        *container.namespace(endpoints.source.name, facts.network),
        *processes.judge(endpoints.source.name, facts.uses, inspection.here, inspection.there),
        *hosts.source(endpoints.source, inspection.here, limits_unreadable=facts.limits_unreadable),
        *security.of_docker(endpoints.source.name, docker_here, described),
        *security.users(endpoints.source.name, docker_here, described),
        *security.of_processes(
            facts.uses,
            (endpoints.source.name, inspection.here),
            (endpoints.destination_name, inspection.there),
        ),
        *container.taken(endpoints, inspection),
        *hosts.gateway(guarded.result()),
        *overlaps.result(),
        *container.mounts(endpoints, inspection),
        *hosts.space(endpoints, inspection),
    ]
    if endpoints.destination is None:
        found += _not_looked_at(endpoints)
    elif inspection.there is not None:
        name, docker_there = endpoints.destination.name, endpoints.destination.docker.info()
        found += hosts.destination(name, docker_there, inspection.here, inspection.there, described)
        found += security.of_docker(name, docker_there, described)
        found += security.owners(name, docker_here, docker_there)
    order = list(Resource)
    inspection.findings = sorted(_without_contradictions(found), key=lambda one: order.index(one.resource))
    return inspection


def refuse(name: str, findings: Sequence[Finding]) -> None:
    """Raise Refused, with every reason, if the findings have a `no`."""
    against = [str(finding) for finding in findings if finding.answer is Answer.NO]
    if against:
        raise Refused(
            f"{name} can't be migrated: " + "; ".join(against), reasons=tuple(against), step=Step.PREFLIGHT
        )


def _without_contradictions(findings: Sequence[Finding]) -> list[Finding]:
    """Remove a `yes` if another check has another answer for the same resource and host."""
    doubted = {(one.host, one.resource) for one in findings if one.answer is not Answer.YES}
    return [
        one for one in findings if one.answer is not Answer.YES or (one.host, one.resource) not in doubted
    ]


def _not_looked_at(endpoints: Endpoints) -> list[Finding]:
    resources = [Resource.CPU, Resource.KERNEL, Resource.NETWORK, Resource.CRIU, Resource.DOCKER]
    resources += [Resource.SPACE, Resource.NAME]
    remedy = f"`sealift attest {endpoints.destination_name} --provision`, then check again"
    return [
        Finding(resource, Answer.UNKNOWN, endpoints.destination_name, "could not be examined", remedy)
        for resource in resources
    ]
