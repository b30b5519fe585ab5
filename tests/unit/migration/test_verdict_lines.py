"""What `sealift check` prints: the verdict first, one entry for one cause, and no line too long for a terminal."""

from __future__ import annotations

import pytest

from sealift.migration.checks.finding import Answer, Finding, Resource
from sealift.migration.checks.verdict import WIDTH, verdict_lines

TERMINAL = Finding(
    Resource.TERMINALS, Answer.NO, "source", "the container has a terminal attached", "Start it without -t"
)
UNSEEN = "could not be examined"
REMEDY = "`sealift attest destination --provision`, then check again"
DOUBTS = [
    Finding(resource, Answer.UNKNOWN, "destination", UNSEEN, REMEDY)
    for resource in (Resource.CPU, Resource.KERNEL, Resource.NETWORK, Resource.CRIU, Resource.DOCKER)
]
FINE = [
    Finding(resource, Answer.YES, "source", "nothing against it")
    for resource in (Resource.FILES, Resource.GPUS)
]


def lines(*findings: Finding, everything: bool = False) -> list[str]:
    return verdict_lines("redis", "source", "destination", findings, everything=everything)


def text(said: list[str]) -> str:
    """As one line."""
    return " ".join(" ".join(said).split())


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        (FINE, "yes: redis can be migrated from source to destination"),
        (
            [*FINE, *DOUBTS],
            "yes: redis can be migrated from source to destination, as far as is known; one thing is in doubt",
        ),
        (
            [*FINE, TERMINAL, *DOUBTS],
            "no: redis cannot be migrated from source to destination, for one reason",
        ),
        (
            [TERMINAL, Finding(Resource.GPUS, Answer.NO, "source", "a GPU", "Take none")],
            "no: redis cannot be migrated from source to destination, for 2 reasons",
        ),
    ],
)
def test_the_verdict_comes_first(findings: list[Finding], verdict: str) -> None:
    said = lines(*findings)
    assert text(said[: said.index("")]) == verdict


def test_what_stands_in_the_way_comes_before_what_is_in_doubt_and_the_rest_on_demand() -> None:
    said = text(lines(*FINE, *DOUBTS, TERMINAL))
    assert said.index("Start it without -t") < said.index(UNSEEN) < said.index("2 others; --all lists them")
    assert "open files" not in said
    everything = text(lines(*FINE, *DOUBTS, TERMINAL, everything=True))
    assert "source, open files, GPUs: nothing against it" in everything
    assert "--all" not in everything


def test_one_cause_has_one_entry() -> None:
    said = text(lines(*DOUBTS))
    assert said.count(UNSEEN) == 1
    assert said.count("Remedy:") == 1
    assert "destination, CPU, kernel, network, CRIU, Docker: could not be examined" in said


def test_no_line_is_longer_than_a_terminal_is_wide_but_a_word_is_never_cut() -> None:
    path = "/" + "x" * 100
    long = Finding(
        Resource.MOUNTS,
        Answer.NO,
        "source",
        f"the bind mount {path} has no counterpart at the destination, which is needed for its files",
        "Name one under `binds` of both hosts in the inventory, or start the container without that mount",
    )
    said = lines(long, TERMINAL, *DOUBTS, *FINE)
    assert all(len(line) <= WIDTH or path in line for line in said)
    assert any(path in line for line in said)
    assert all(line.startswith((" ", "no", "yes", "unknown")) or not line for line in said)
