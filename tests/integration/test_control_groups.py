"""What a container sees of its control groups, and what it has made of them, is the same after a migration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from control_groups import INNER, LOOP, SEE, seen

from sealift.migration.request import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]


@pytest.mark.parametrize(
    ("strategy", "namespace"),
    [
        (Strategy.AUTO, "host"),
        pytest.param(Strategy.POST_COPY, "host", marks=pytest.mark.whole),
        (Strategy.AUTO, "private"),
    ],
)
def test_limits_are_seen_as_they_were(hosts: Hosts, strategy: Strategy, namespace: str) -> None:
    options = ["--memory", "256m", "--pids-limit", "100", "--cpus", "0.5", "--cgroupns", namespace]
    hosts.python("box", SEE + LOOP, options=options)
    before = seen(hosts, "source")
    assert before["limits"], "nothing is compared"
    hosts.engine("box", strategy=strategy)
    assert seen(hosts, "destination") == before
    hosts.engine("box", source="destination", destination="source", strategy=strategy)
    assert seen(hosts, "source") == before


def test_groups_that_the_container_has_made_come_along(hosts: Hosts) -> None:
    hosts.python("box", SEE + INNER + LOOP, options=["--cap-add", "SYS_ADMIN"])
    before = seen(hosts, "source")
    assert len(before["inner"]) >= 4
    assert before["alive"]
    hosts.engine("box")
    assert seen(hosts, "destination") == before
    hosts.engine("box", source="destination", destination="source")
    assert seen(hosts, "source") == before
