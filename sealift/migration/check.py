"""`sealift check`: what a migration's preflight would find, without a migration. Nothing is changed on either host.

For the estimate, the marks of touched pages are cleared, and zeros are sent through the tunnel for a moment.

The destination is attested. It gets nonces, but nothing of the container, no key and no peer. If it was never
provisioned and its Docker does not run yet, the report says that it could not be examined.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sealift.attestation.attest import attest, reach
from sealift.attestation.record import pinned
from sealift.errors import HostUnreachable, Refused
from sealift.host import docker, ssh
from sealift.host.agents import Agent
from sealift.migration.checks.finding import Answer, Finding, Resource
from sealift.migration.checks.inspection import Endpoints
from sealift.migration.parties import Side
from sealift.migration.preflight import examine
from sealift.migration.request import binds, check_evidence, check_hosts
from sealift.migration.survey import survey
from sealift.model import Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory
    from sealift.migration.request import Request
    from sealift.model import Estimate


@dataclass(frozen=True)
class Checked:
    """The findings, in the order of the resources, and the estimate."""

    container: str
    source: str
    destination: str
    findings: tuple[Finding, ...]
    estimate: Estimate

    @property
    def movable(self) -> bool:
        """Whether no finding prevents the migration."""
        return all(finding.answer is not Answer.NO for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "container": self.container,
            "source": self.source,
            "destination": self.destination,
            "movable": self.movable,
            "findings": [finding.as_dict() for finding in self.findings],
            "estimate": self.estimate.model_dump(mode="json"),
        }


def check(inventory: Inventory, request: Request) -> Checked:
    """Judge every resource, and estimate times. Refused if there is no such container that runs."""
    with _endpoints(inventory, request) as (endpoints, evidence):
        inspection = examine(endpoints)
        estimate = survey(
            endpoints, inspection, bandwidth=request.options.bandwidth, max_rounds=request.options.max_rounds
        )
    name = inspection.container["Name"].lstrip("/")
    return Checked(name, request.source, request.destination, (evidence, *inspection.findings), estimate)


@contextmanager
def _endpoints(inventory: Inventory, request: Request) -> Iterator[tuple[Endpoints, Finding]]:
    check_hosts(inventory, request)
    with ExitStack() as stack:
        evidence, connection = _arrive(inventory, request)
        there = None
        if connection is not None:
            stack.enter_context(connection)
            there = _side(request.destination, connection, stack)
        here = _side(request.source, stack.enter_context(reach(inventory, request.source)), stack)
        if here is None:
            raise HostUnreachable(
                "Docker does not answer",
                host=request.source,
                remedy="`systemctl status docker` there tells why",
            )
        line = stack.enter_context(ssh.connected("gateway", inventory.gateway))
        gateway = stack.enter_context(Agent(line, "gateway"))
        yield (
            Endpoints(
                pinned(inventory),
                request.container,
                here,
                there,
                request.destination,
                gateway,
                request.options.strategy is Strategy.POST_COPY,
                binds(inventory, request),
            ),
            evidence,
        )


def _arrive(inventory: Inventory, request: Request) -> tuple[Finding, Connection | None]:
    """The evidence of the destination, and a connection to it if one is allowed."""
    name = request.destination
    host = pinned(inventory).host(name)
    try:
        check_evidence(inventory, request)
        if request.options.evidence != "none":
            record, connection = attest(inventory, name)
            return Finding(Resource.EVIDENCE, Answer.YES, name, record.sentences()[0]), connection
        what = "not verified, as asked for: only its pinned SSH key identifies this host"
        evidence = Finding(Resource.EVIDENCE, Answer.UNKNOWN, name, what)
    except Refused as refused:
        answer = Answer.NO
        evidence = Finding(
            Resource.EVIDENCE, answer, name, f"not verified: {refused.message}", refused.remedy or ""
        )
        if host.vm is not None:  # a host that fails to prove itself is asked nothing else
            return evidence, None
    except HostUnreachable as silent:
        what = f"not verified: {silent.message}"
        return Finding(Resource.EVIDENCE, Answer.UNKNOWN, name, what, silent.remedy or ""), None
    try:
        return evidence, ssh.connect(name, host) if host.host_key else None
    except HostUnreachable as silent:
        return Finding(Resource.EVIDENCE, evidence.answer, name, silent.message, silent.remedy or ""), None


def _side(name: str, connection: Connection, stack: ExitStack) -> Side | None:
    """A host to examine, without agents that could change it. None if its Docker does not run."""
    try:
        api = docker.wait_for(connection, patience_s=0)
    except HostUnreachable:
        return None
    stack.callback(api.close)
    return Side(name, connection, api, stack.enter_context(Agent(connection, "facts")))
