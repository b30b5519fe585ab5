"""A destination that can't hear the gateway is told by the controller how it was decided."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from sealift_agent.admission import Admission
from sealift_agent.destination import Destination
from sealift_agent.protocol import Decider
from sealift_agent.wire import LOOPBACK, Controller, Link

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("outcome", ["committed", "rolled back"])
def test_it_asks_no_more_once_it_was_told(outcome: str, tmp_path: Path) -> None:
    with Admission(LOOPBACK, "token") as gateway:
        destination = Destination(Controller())
        destination.gateway = Decider(LOOPBACK, gateway.port, "token", "11" * 32, group=False)
        destination.migration, destination.directory = "m", tmp_path
        destination.decider = Link.connect(LOOPBACK, gateway.port, "token")
        heard: list[bool] = []
        asking = threading.Thread(target=lambda: heard.append(destination._switch()), daemon=True)
        asking.start()
        time.sleep(0.2)
        assert not heard, "nobody has answered"
        destination.decided(outcome)
        asking.join(5)
        assert heard == [outcome == "committed"]
