"""Which kernels a container moves between: those that were tried, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_findings import HERE, QUIET, WHO

from sealift.migration.checks import hosts, processes
from sealift.migration.checks.cpu_flags import HARMLESS
from sealift.migration.checks.finding import Answer, Findings, Resource
from sealift_agent.constants import DROPPABLE


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ("6.1.0-50-cloud-amd64", "6.12.117+deb13-amd64", Answer.YES),
        ("6.12.117+deb13-amd64", "6.1.0-50-cloud-amd64", Answer.YES),
        ("6.18.44-fc-v1045", "6.18.50", Answer.YES),
        ("6.12.1", "6.18.1", Answer.UNKNOWN),
        ("6.18.1", "6.12.1", Answer.UNKNOWN),
        ("5.15.0", "5.15.0", Answer.UNKNOWN),
        ("7.2.12", "7.2.12", Answer.UNKNOWN),
        ("6.12.117", "7.2.12", Answer.UNKNOWN),
    ],
)
def test_only_what_was_tried_is_a_yes(here: str, there: str, expected: Answer) -> None:
    findings = Findings("destination")
    hosts._kernel(findings, replace(HERE, kernel=here), replace(HERE, kernel=there))
    (finding,) = findings.found
    assert finding.answer is expected
    assert here in finding.what
    assert there in finding.what
    assert finding.remedy or expected is Answer.YES


@pytest.mark.parametrize(
    ("droppable", "expected"), [(True, Answer.YES), (False, Answer.NO), (None, Answer.UNKNOWN)]
)
def test_memory_that_the_kernel_may_drop_needs_a_kernel_that_has_it(
    droppable: bool | None, expected: Answer
) -> None:
    there = None if droppable is None else replace(HERE, droppable=droppable)
    uses = replace(QUIET, mappings={DROPPABLE: WHO})
    found = processes.judge("source", uses, replace(HERE, droppable=True), there)
    (finding,) = [one for one in found if one.resource is Resource.MEMORY]
    assert finding.answer is expected
    assert expected is Answer.YES or (WHO[0] in finding.what and "6.11" in finding.remedy)


def test_what_one_kernel_calls_a_processor_is_no_feature_of_it() -> None:
    assert "xtopology" in HARMLESS  # Linux 6.12 finds it on the emulated processor, 6.1 does not
    assert not HARMLESS & {"avx2", "avx512f", "sha_ni", "user_shstk", "fsgsbase"}
