"""The same again and again, and much at once: everything is intact, and no host is left with more than it had."""

from __future__ import annotations

from contextlib import ExitStack
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS, IMAGE, counting, until_same

from sealift.errors import SealiftError

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

WAYS = (DOCKER_HOSTS, DOCKER_HOSTS[::-1])


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("containers", "times"), [(3, 1), pytest.param(10, 5, marks=pytest.mark.whole)], ids=["sample", "whole"]
)
def test_many_at_once_go_back_and_forth(hosts: Hosts, containers: int, times: int) -> None:
    addresses = {name: hosts.redis(name) for name in (f"redis-{number}" for number in range(containers))}
    there_and_back(hosts, *addresses)  # the first time brings the image, and daemons load what they need
    before = {host: hosts.state(host) for host in (*DOCKER_HOSTS, "gateway")}
    with ExitStack() as stack:
        clients = [stack.enter_context(counting(hosts, address, 0.01)) for address in addresses.values()]
        for _ in range(times):
            there_and_back(hosts, *addresses)
    for found in clients:
        assert found[0].intact, found[0].summary()
    assert {hosts.owner(address) for address in addresses.values()} == {"source"}
    assert_nothing_left(hosts, before)


@pytest.mark.whole
@pytest.mark.timeout(3600)
def test_a_hundred_in_a_row(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=5)
    there_and_back(hosts, "redis")
    before = {host: hosts.state(host) for host in (*DOCKER_HOSTS, "gateway")}
    with counting(hosts, address, 0.01) as found:
        for _ in range(50):
            there_and_back(hosts, "redis")
    assert found[0].intact, found[0].summary()
    print(found[0].summary())
    assert_nothing_left(hosts, before)


def there_and_back(hosts: Hosts, *containers: str) -> None:
    for source, destination in WAYS:
        failures: list[str] = []

        def go(name: str, source: str = source, destination: str = destination) -> None:
            try:
                hosts.engine(name, source=source, destination=destination)
            except SealiftError as failed:
                failures.append(f"{name}: {failed}")  # noqa: B023 - joined below

        threads = [Thread(target=go, args=(name,)) for name in containers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


def assert_nothing_left(hosts: Hosts, before: dict[str, dict[str, list[str]]]) -> None:
    for host, state in before.items():
        left = until_same(hosts, host, state, allow=IMAGE)
        assert not left, f"{host}: {left}"
