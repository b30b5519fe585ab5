"""The vm lab, up once for the tests of migrations and of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stage import own_run_directory, raised, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stage import Stage


@pytest.fixture(scope="session")
def whole_stage() -> Iterator[Stage]:
    """Connections to all hosts of the lab. It is taken down at the end, whatever happens."""
    with own_run_directory(), raised("vm") as inventory, set_up(inventory) as ready:
        yield ready


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The lab for one test, cleaned of its containers, volumes and addresses afterwards."""
    yield whole_stage
    whole_stage.clean()
