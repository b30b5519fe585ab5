"""The vm lab, up once for the tests of migrations and of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hosts import own_run_directory, raised, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts


@pytest.fixture(scope="session")
def all_hosts() -> Iterator[Hosts]:
    """Connections to all hosts of the lab. It is taken down at the end, whatever happens."""
    with own_run_directory(), raised("vm") as inventory, set_up(inventory) as ready:
        yield ready


@pytest.fixture
def hosts(all_hosts: Hosts) -> Iterator[Hosts]:
    """The lab for one test, cleaned of its containers, volumes and addresses afterwards."""
    yield all_hosts
    all_hosts.clean()
