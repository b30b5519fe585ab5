"""Several containers freeze and resume together, and none of them moves alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from groups import armed, begin
from hosts import counting, until_same

from sealift.errors import MigrationFailed, UnusableInput
from sealift.migration import group, steps
from sealift.migration.group import PROJECT_LABEL, of_project
from sealift.migration.request import Options

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.usefixtures("prefect_api")]


def replication(hosts: Hosts, host: str, container: str) -> dict[str, str]:
    """What a Redis says of its replicas, or of its master."""
    said = hosts.docker(host, "exec", container, "redis-cli", "info", "replication")
    said += "\n" + hosts.docker(host, "exec", container, "redis-cli", "info", "stats")
    return dict(line.strip().split(":", 1) for line in said.splitlines() if ":" in line)


def test_two_that_are_connected_move_together_and_their_connection_with_them(hosts: Hosts) -> None:
    from flows.migrate_group import migrate_group

    master, _ = hosts.redis("master", memory_mb=10), hosts.redis("replica")
    hosts.docker("source", "exec", "replica", "redis-cli", "replicaof", master, "6379")
    hosts.sh(
        "source",
        "until docker exec replica redis-cli info replication | grep -q master_link_status:up; do sleep 0.1; done",
    )
    with counting(hosts, master) as found:
        reports = migrate_group(
            "source",
            "destination",
            ["master", "replica"],
            options=Options(evidence=hosts.evidence("destination")),
            inventory=hosts.path,
        )
    assert found[0].intact, found[0].summary()
    assert [report.outcome for report in reports] == ["committed", "committed"]
    assert all(report.group == ["master", "replica"] for report in reports)
    assert [hosts.owner(report.address) for report in reports] == ["destination", "destination"]
    assert not hosts.docker("source", "ps", "-aq")
    hosts.sh(
        "destination",
        "until [ $(docker exec replica redis-cli get counter) = $(docker exec master redis-cli get counter) ]; "
        "do sleep 0.1; done",
    )
    assert replication(hosts, "destination", "replica")["master_link_status"] == "up"
    at_master = replication(hosts, "destination", "master")
    assert (at_master["sync_full"], at_master["sync_partial_ok"]) == ("1", "0"), "it was connected anew"


def test_what_one_of_them_fails_in_all_are_rolled_back_from(hosts: Hosts) -> None:
    addresses = {name: hosts.redis(name, memory_mb=5) for name in ("one", "two")}
    before = {host: hosts.state(host) for host in ("source", "destination", "gateway")}
    with (
        counting(hosts, addresses["one"]) as first,
        counting(hosts, addresses["two"]) as second,
        pytest.raises(MigrationFailed) as raised,
    ):
        migrate_but_break_the_second(hosts)
    assert raised.value.step == "restore"
    for found in (first[0], second[0]):
        assert found.intact, found.summary()
    for address in addresses.values():
        assert hosts.owner(address) == "source"
    for host, state in before.items():
        left = until_same(hosts, host, state, allow=frozenset({"layers"}))
        assert not left, f"{host}: {left}"


def migrate_but_break_the_second(hosts: Hosts) -> None:
    """What would restore the second one is killed; the first one has everything."""
    with armed(hosts, "one", "two") as (sessions, cutovers):
        waiting = f"/run/sealift/restore/{sessions[1].journal.traces.copy}/waiting"
        hosts.sh("destination", f"kill -9 $(head -n 1 {waiting})")
        failures = begin(cutovers)
        assert len(failures) == len(cutovers)
        raise steps.first_failure(failures)


@pytest.mark.whole
def test_a_group_waits_for_the_slowest_of_it(hosts: Hosts) -> None:
    addresses = {name: hosts.redis(name, memory_mb=5) for name in ("one", "two")}
    with counting(hosts, addresses["one"]) as first, armed(hosts, "one", "two") as (sessions, cutovers):
        criu = f"$(pgrep -P $(head -n 1 /run/sealift/restore/{sessions[1].journal.traces.copy}/waiting))"
        hosts.sh("destination", f"pid={criu}; kill -STOP $pid; (sleep 12; kill -CONT $pid) >/dev/null 2>&1 &")
        assert not begin(cutovers)
    assert first[0].intact, first[0].summary()
    assert first[0].longest_gap_ms > 11_000
    assert {hosts.owner(address) for address in addresses.values()} == {"destination"}


def test_a_compose_project_is_found_by_its_label(hosts: Hosts) -> None:
    hosts.docker(
        "source", "run", "--detach", "--name", "labelled", "--label", f"{PROJECT_LABEL}=shop", *sleeper(hosts)
    )
    assert of_project(hosts.inventory, "source", "shop") == ["labelled"]
    with pytest.raises(UnusableInput, match="no container of a Compose project 'shopp' runs there"):
        of_project(hosts.inventory, "source", "shopp")


def sleeper(hosts: Hosts) -> tuple[str, ...]:
    from sealift.lab import images

    return images.provide(hosts["source"], images.REDIS, say=print), "sleep", "60"


def test_a_container_named_twice_is_no_group(hosts: Hosts) -> None:
    twice = [hosts.request("one"), hosts.request("one")]
    with pytest.raises(UnusableInput, match="Name each container once"), ExitStack() as stack:
        group.open_sessions(hosts.inventory, twice, stack)
