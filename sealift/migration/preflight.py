"""Preflight: everything that would stop the migration, found before anything is touched, and all of it at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sealift.errors import Refused
from sealift.migration.checks import container, hosts, processes
from sealift.migration.checks.finding import Answer, Finding, Resource
from sealift.migration.checks.scene import Look, Scene
from sealift.model import Choice, Step, Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.migration.session import Session

LAZY_FROM_BYTES = 32 << 20
"""Less memory is read in faster before the start than CRIU's daemon for filling it in afterwards is started."""


def preflight(session: Session) -> list[str]:
    """Look at the container and both hosts. Returns warnings; Refused carries every reason."""
    request, found = session.request, session.found
    look = examine(
        Scene(
            session.inventory,
            request.container,
            session.source,
            session.destination,
            request.destination,
            session.gateway,
        )
    )
    refuse(request.container, look.findings)
    found.container, found.address = look.container, look.address
    found.memory_bytes, found.image_at_destination = look.uses["memory_bytes"], look.image_there
    both = {request.source: look.here, request.destination: look.there or {}}
    missing = [name for name, facts in both.items() if not facts["lazy"]]
    found.choice = choose(request.strategy, look.here["dirty_tracking"], missing)
    found.lazy_restore = both[request.destination]["lazy"] and found.memory_bytes >= LAZY_FROM_BYTES
    found.warnings += container.warnings(look.container)
    return found.warnings


def examine(scene: Scene) -> Look:
    """Every finding, in the order of the resources. Looks at hosts and processes, and changes nothing."""
    described = container.describe(scene)
    with ThreadPoolExecutor(2) as pool:
        here = pool.submit(scene.source.facts.call, "host")
        there = pool.submit(scene.destination.facts.call, "host") if scene.destination else None
        uses = scene.source.facts.call("container", container=described["Id"])
    look = Look(described, uses, here.result(), there.result() if there else None)
    found = [
        *container.network(scene, look),
        *container.configuration(scene, look),
        *processes.judge(scene.source.name, uses, look.here, look.there),
        *hosts.source(scene.source, look.here, uses),
        *container.taken(scene, look),
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
    resources = (Resource.CPU, Resource.KERNEL, Resource.CRIU, Resource.DOCKER, Resource.SPACE, Resource.NAME)
    remedy = f"`sealift attest {scene.destination_name} --provision`, then check again"
    return [
        Finding(resource, Answer.UNKNOWN, scene.destination_name, "could not be looked at", remedy)
        for resource in resources
    ]


def choose(asked: Strategy, dirty_tracking: bool, not_lazy: Sequence[str] = ()) -> Choice:
    """The strategy. Refused when the one asked for can't be had.

    `not_lazy` names the hosts where CRIU can't bring a process's memory after its start.
    """
    if asked == Strategy.POST_COPY and not_lazy:
        why = (
            f"CRIU can't work with userfaultfd on {' and '.join(not_lazy)}, so memory can't follow afterwards"
        )
        raise Refused(why, step=Step.PREFLIGHT, remedy="Take --strategy auto", reasons=(why,))
    if asked in {Strategy.STOP_AND_COPY, Strategy.POST_COPY}:
        return Choice(strategy=asked, why="asked for")
    if dirty_tracking:
        return Choice(strategy=Strategy.PRE_COPY, why="the source's kernel tracks dirty pages")
    why = (
        "the source's kernel does not track dirty pages (CONFIG_MEM_SOFT_DIRTY), so there can be no pre-dump"
    )
    if asked == Strategy.PRE_COPY:
        raise Refused(
            why, step=Step.PREFLIGHT, remedy="Take --strategy stop-and-copy or auto", reasons=(why,)
        )
    return Choice(strategy=Strategy.STOP_AND_COPY, why=why)
