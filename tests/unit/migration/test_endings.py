"""What each host is told at each outcome: the same by the session that was there and by recovery from the journal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sealift.errors import UnusableInput
from sealift.migration.endings import Made, Traces, ending
from sealift_agent.constants import BRIDGE
from sealift_agent.protocol import (
    Complete,
    Discard,
    Order,
    Outcome,
    Resume,
    Role,
    SweepCopy,
    SweepUnnamed,
    Unfinished,
)

POLICY = {"Name": "always", "MaximumRetryCount": 0}
OPENED = Unfinished(
    migration="m",
    held=False,
    phase="opened",
    source="here",
    destination="there",
    address="10.77.0.9",
    container="c",
    name="redis",
    image="sha256:1",
    missing=["data"],
)
COPIED = replace(OPENED, phase="copied", copy="d", volumes={"data": "now"})
ARMED = replace(COPIED, phase="armed", restart_policy=POLICY)
MADE = Made("redis", "sha256:1", ["data"])
SESSIONS = {
    "opened": Traces("m", "c", "10.77.0.9", made=MADE),
    "copied": Traces("m", "c", "10.77.0.9", copy="d", volumes={"data": "now"}),
    "armed": Traces("m", "c", "10.77.0.9", copy="d", volumes={"data": "now"}, restart_policy=POLICY),
}
RECORDS = {"opened": OPENED, "copied": COPIED, "armed": ARMED}
COMMITTED, ROLLED_BACK = Outcome.COMMITTED, Outcome.ROLLED_BACK
SOURCE, DESTINATION = Role.SOURCE, Role.DESTINATION
TABLE: list[tuple[str, Outcome, Role, Order[Any]]] = [
    ("opened", ROLLED_BACK, SOURCE, Resume("m", "c", "10.77.0.9", BRIDGE, None)),
    ("opened", ROLLED_BACK, DESTINATION, SweepUnnamed("m", "redis", "sha256:1", ["data"])),
    ("copied", ROLLED_BACK, SOURCE, Resume("m", "c", "10.77.0.9", BRIDGE, None)),
    ("copied", ROLLED_BACK, DESTINATION, SweepCopy("m", "d", {"data": "now"})),
    ("armed", ROLLED_BACK, SOURCE, Resume("m", "c", "10.77.0.9", BRIDGE, POLICY)),
    ("armed", ROLLED_BACK, DESTINATION, SweepCopy("m", "d", {"data": "now"})),
    ("armed", COMMITTED, SOURCE, Discard("m", "c")),
    ("armed", COMMITTED, DESTINATION, Complete("m", "d", "10.77.0.9", BRIDGE, POLICY)),
]


@pytest.mark.parametrize(("phase", "outcome", "role", "order"), TABLE)
def test_session_and_recovery_give_a_host_the_same_order(
    phase: str, outcome: Outcome, role: Role, order: Order[Any]
) -> None:
    assert ending(role, outcome, SESSIONS[phase]) == order
    assert ending(role, outcome, Traces.of_record(RECORDS[phase])) == order


def test_a_source_whose_container_was_never_found_is_told_nothing() -> None:
    assert ending(SOURCE, ROLLED_BACK, Traces("m")) is None


@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
@pytest.mark.parametrize("traces", [SESSIONS["opened"], Traces.of_record(OPENED), Traces("m", "c")])
def test_no_host_removes_anything_for_a_commit_of_which_no_copy_is_known(role: Role, traces: Traces) -> None:
    with pytest.raises(UnusableInput, match="migration m has committed, and no container is on record"):
        ending(role, COMMITTED, traces)


def test_a_destination_without_a_copy_still_forgets_the_migration() -> None:
    assert ending(DESTINATION, ROLLED_BACK, Traces("m")) == SweepCopy("m", "", {})
