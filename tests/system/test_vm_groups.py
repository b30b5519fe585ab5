"""Control groups of version 2, which real VMs have: a container sees its own, and those that it has made come along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from control_groups import INNER, LOOP, SEE, seen

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [
    pytest.mark.root,
    pytest.mark.vm,
    pytest.mark.whole,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("prefect_api"),
]


def test_limits_are_seen_as_they_were(hosts: Hosts) -> None:
    hosts.python("box", SEE + LOOP, options=["--memory", "256m", "--pids-limit", "100", "--cpus", "0.5"])
    before = seen(hosts, "source")
    assert before["limits"], "nothing is compared"
    hosts.engine("box")
    assert seen(hosts, "destination") == before
    hosts.engine("box", source="destination", destination="source")
    assert seen(hosts, "source") == before


def test_groups_that_the_container_has_made_come_along(hosts: Hosts) -> None:
    # Without a limit systemd takes one by the size of each host.
    hosts.python("box", SEE + INNER + LOOP, options=["--cap-add", "SYS_ADMIN", "--pids-limit", "200"])
    before = seen(hosts, "source")
    assert len(before["inner"]) >= 4
    hosts.engine("box")
    assert seen(hosts, "destination") == before
    hosts.engine("box", source="destination", destination="source")
    assert seen(hosts, "source") == before
