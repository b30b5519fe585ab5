"""A command that ended badly: its error says why."""

from __future__ import annotations

import pytest

from sealift.process import Completed, failure

DOCKER = "docker: Error response from daemon: Conflict. The container name is already in use.\n"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("one\ntwo\n", "two"),
        (DOCKER + "See 'docker run --help'.\n", DOCKER.strip()),
        (DOCKER + "\nRun 'docker run --help' for more information\n", DOCKER.strip()),
        ("See 'docker run --help'.\n", "See 'docker run --help'."),
        ("", "it printed nothing"),
    ],
)
def test_the_reason_is_the_last_line_that_can_be_one(said: str, reason: str) -> None:
    found = str(failure(["docker", "run"], Completed(125, "", said)))
    assert f"status 125: {reason}" in found
