"""A migration of a real program, with a client that notices everything, between two namespaced hosts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from stage import DOCKER_HOSTS, counting, until_same

from benchmarks.workloads import nginx, postgresql, service

if TYPE_CHECKING:
    from stage import Stage

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.usefixtures("prefect_api")]

GAP_MS = 2000


def test_longest_gap_of_a_redis_of_100_mb_is_at_most_two_seconds(stage: Stage) -> None:
    address = stage.redis("redis", memory_mb=100)
    with counting(stage, address) as found:
        time.sleep(1)
        report = stage.migrate("redis")
        time.sleep(1)
    print(found[0].summary(), f"frozen {report.frozen_ms:.0f} ms, cut {report.cut_ms:.0f} ms")
    assert found[0].intact, found[0].summary()
    assert found[0].longest_gap_ms <= GAP_MS
    assert report.memory_bytes > 100_000_000


def test_ten_migrations_back_and_forth_leave_nothing_on_either_host(stage: Stage) -> None:
    address = stage.redis("redis", memory_mb=5)
    before = {host: stage.look(host) for host in (*DOCKER_HOSTS, "gateway", "client")}
    with counting(stage, address) as found:
        stage.migrate("redis")
        stage.migrate("redis", "destination", "source")
        # The image has come to the destination for good: what follows is compared with this.
        after_two = {host: stage.look(host) for host in DOCKER_HOSTS}
        for _ in range(4):
            stage.migrate("redis")
            stage.migrate("redis", "destination", "source")
    print(found[0].summary())
    assert found[0].intact, found[0].summary()
    assert stage.owner(address) == "source"
    assert stage.inspect("source", "redis")["State"]["Running"]
    for host in before:
        left = until_same(stage, host, after_two.get(host, before[host]))
        assert not left, f"{host}: {left}"
    image = frozenset({"layers"})
    for host in DOCKER_HOSTS:
        left = until_same(stage, host, before[host], allow=image)
        assert not left, f"{host}: {left}"


def test_a_service_keeps_memory_files_offsets_identity_and_clocks(stage: Stage) -> None:
    address = stage.address()
    options = [
        "--env",
        "COLOUR=blue",
        "--workdir",
        "/home/workload",
        "--user",
        "1000:33",
        "--hostname",
        "itself",
    ]
    service.start(stage["source"], "service", address, stage.network, say=print, options=options)
    with service.client(stage["client"], address) as client:
        time.sleep(1)
        stage.migrate("service")
        time.sleep(1)
        found = client.findings()
    print(found.summary())
    assert found.intact, found.raw["faults"] or found.summary()
    first, last = found.raw["first"], found.raw["last"]
    assert first["uid"] == last["uid"] == 1000
    assert last["gid"] == 33
    assert last["cwd"] == "/home/workload"
    assert last["hostname"] == "itself"
    assert last["environment"]["COLOUR"] == "blue"
    assert len(last["threads"]) == 7
    assert all(later > earlier for earlier, later in zip(first["counts"], last["counts"], strict=True))
    assert last["mappings"]["volume"]["number"] > first["mappings"]["volume"]["number"]
    assert last["files"]["deleted"]["numbers"] > first["files"]["deleted"]["numbers"]


def test_every_row_that_postgresql_acknowledged_to_eight_writers_is_there_afterwards(stage: Stage) -> None:
    address = stage.address()
    postgresql.start(stage["source"], "postgresql", address, stage.network, say=print)
    with postgresql.client(stage["client"], address) as client:
        time.sleep(1)
        stage.migrate("postgresql")
        time.sleep(1)
        found = client.findings()
    print(found.summary())
    assert found.intact, found.raw["faults"] or found.summary()


def test_a_download_from_nginx_goes_on_and_has_the_right_content(stage: Stage) -> None:
    address = stage.address()
    digest = nginx.start(stage["source"], "nginx", address, stage.network, 60, say=print)
    with nginx.client(stage["client"], address, digest) as client:
        report = stage.migrate("nginx")
        found = client.findings()
    print(found.summary())
    assert found.intact, found.raw["faults"] or found.summary()
    assert report.file_bytes > 60_000_000
