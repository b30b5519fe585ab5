"""A destination that can't hear the gateway is told by the controller how it was decided."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from parties import asked_at, connected

from sealift_agent.admission import Admission
from sealift_agent.destination.decision import Decision
from sealift_agent.wire import LOOPBACK, Controller

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("outcome", ["committed", "rolled back"])
def test_it_asks_no_more_once_it_was_told(outcome: str, tmp_path: Path) -> None:
    with Admission(LOOPBACK, "t") as gateway:
        here, _there = connected()
        decision = Decision(asked_at(gateway.port, timeout_s=30), Controller(), here, tmp_path)
        heard: list[bool] = []
        asking = threading.Thread(target=lambda: heard.append(decision.switch()), daemon=True)
        asking.start()
        time.sleep(0.2)
        assert not heard, "nobody has answered"
        decision.tell(outcome)
        asking.join(5)
        assert heard == [outcome == "committed"]
