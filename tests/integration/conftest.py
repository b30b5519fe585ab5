"""The netns lab, up once for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hosts import own_run_directory, raised, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.inventory import Inventory


@pytest.fixture(scope="session", autouse=True)
def run_directory() -> Iterator[None]:
    """The tests' lab is none of the user's."""
    with own_run_directory():
        yield


@pytest.fixture(scope="session")
def netns_lab(run_directory: None) -> Iterator[Inventory]:
    """The lab's inventory. It is taken down at the end, whatever happens."""
    with raised("netns") as inventory:
        yield inventory


@pytest.fixture(scope="session")
def all_hosts(netns_lab: Inventory) -> Iterator[Hosts]:
    """Connections to all hosts, open for the session."""
    with set_up(netns_lab) as ready:
        yield ready


@pytest.fixture
def hosts(all_hosts: Hosts) -> Iterator[Hosts]:
    """The lab for one test, cleaned of its containers, volumes and addresses afterwards."""
    yield all_hosts
    all_hosts.clean()
