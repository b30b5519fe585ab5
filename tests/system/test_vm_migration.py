"""Migrations between two real VMs, with clients that notice everything."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS, check_stopped, counting, until_same

from benchmarks.workloads import nginx, postgresql, service
from sealift.migration.cutover import Cutover
from sealift.model import Evidence, Strategy

if TYPE_CHECKING:
    from hosts import Hosts

    from sealift.migration.session import Session

PAUSE_S = 0.02
"""Without one the client would take the whole of an emulated processor, and everything else its leftovers."""

WRITERS_PAUSE_S = 0.5

pytestmark = [
    pytest.mark.root,
    pytest.mark.vm,
    pytest.mark.timeout(900),  # emulated processors, and a first image to send
    pytest.mark.usefixtures("prefect_api"),
]


@pytest.mark.whole
def test_what_went_ahead_in_rounds_follows_the_restored_process(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=48)
    digest = hosts.docker("source", "exec", "redis", "redis-cli", "DEBUG", "DIGEST")
    restored: list[int] = []

    def look(session: Session) -> None:
        assert isinstance(session.decision, Cutover)
        restored.append(session.decision.heard.restored.statistics["pages_restored"])

    with counting(hosts, address, PAUSE_S) as found:
        report = hosts.engine("redis", {"restored": look})
    assert found[0].intact, found[0].summary()
    assert report.strategy == Strategy.PRE_COPY
    assert sum(made.sent_bytes for made in report.rounds) > 48_000_000 > 10 * report.last_bytes
    assert restored[0] < 6000, "most of what went ahead follows"
    hosts.docker("destination", "exec", "redis", "redis-cli", "DEL", "counter")
    assert hosts.docker("destination", "exec", "redis", "redis-cli", "DEBUG", "DIGEST") == digest


@pytest.mark.whole
def test_a_stopped_container_stays_so_on_control_groups_of_version_2(hosts: Hosts) -> None:
    check_stopped(hosts)


@pytest.mark.whole
def test_three_migrations_in_a_row_lose_nothing_and_leave_nothing(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=10)
    with counting(hosts, address, PAUSE_S) as found:
        first = hosts.migrate("redis")
        after_first = {host: hosts.state(host) for host in DOCKER_HOSTS}
        hosts.migrate("redis", "destination", "source")
        hosts.migrate("redis")
    print(found[0].summary())
    assert found[0].intact, found[0].summary()
    assert first.strategy == Strategy.PRE_COPY
    assert first.rounds
    assert first.rounds[1].skipped_bytes > first.rounds[1].sent_bytes
    assert first.lab == "vm"
    assert first.accelerator in {"tcg", "kvm"}
    assert first.evidence == Evidence.EMULATED
    state = hosts.inspect("destination", "redis")
    group = hosts.sh("destination", 'cat "/proc/$1/cgroup"', str(state["State"]["Pid"]))
    assert state["Id"] in group, "its limits are those of the control group that Docker knows"
    for host in DOCKER_HOSTS:
        left = until_same(hosts, host, after_first[host])
        assert not left, f"{host}: {left}"


@pytest.mark.whole
def test_a_service_keeps_its_clocks_on_a_host_that_booted_at_another_time(hosts: Hosts) -> None:
    address = hosts.address()
    service.start(
        hosts["source"], "service", address, hosts.network, say=print, options=["--user", "1000:33"]
    )
    with service.client(hosts["client"], address) as client:
        time.sleep(2)
        hosts.migrate("service")
        time.sleep(2)
        found = client.findings()
    print(found.summary())
    assert found.intact, found.raw["faults"] or found.summary()
    first, last = found.raw["first"], found.raw["last"]
    assert last["uid"] == 1000
    assert last["monotonic_ns"] > first["monotonic_ns"]
    assert last["boottime_ns"] > first["boottime_ns"]
    assert all(later > earlier for earlier, later in zip(first["counts"], last["counts"], strict=True))


@pytest.mark.whole
def test_eight_writers_find_every_acknowledged_row_in_postgresql(hosts: Hosts) -> None:
    address = hosts.address()
    postgresql.start(hosts["source"], "postgresql", address, hosts.network, say=print)
    with postgresql.client(hosts["client"], address, WRITERS_PAUSE_S) as client:
        time.sleep(2)
        report = hosts.migrate("postgresql")
        time.sleep(2)
        found = client.findings()
    print(found.summary(), report.steps)
    assert found.intact, found.raw["faults"] or found.summary()


@pytest.mark.whole
def test_a_download_goes_on_through_the_migration_of_nginx(hosts: Hosts) -> None:
    address = hosts.address()
    digest = nginx.start(hosts["source"], "nginx", address, hosts.network, 10, say=print)
    with nginx.client(hosts["client"], address, digest) as client:
        report = hosts.migrate("nginx")
        found = client.findings()
    print(found.summary(), report.steps)
    assert found.intact, found.raw["faults"] or found.summary()
