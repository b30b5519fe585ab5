"""Runs on a host in the place of an agent's `__main__`: the agent itself, but held at one moment.

It says that it is there by a file, and goes on when another one appears. `MOMENT` is beside it in the archive.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift_agent import destination, gateway, source
from sealift_agent.moment import MOMENT

if TYPE_CHECKING:
    from collections.abc import Callable

PLACE = Path("/run/sealift/halt")
LONGEST_S = 60


def halt() -> None:
    """Say that the moment is here, and wait."""
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "at").touch()
    deadline = time.monotonic() + LONGEST_S
    while not (PLACE / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def after(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Halt whenever that method has returned, and `when` says so of its result and arguments."""
    method = getattr(owner, name)

    def held(*arguments: Any, **named: Any) -> Any:
        result = method(*arguments, **named)
        if when(result, *arguments, **named):
            halt()
        return result

    setattr(owner, name, held)


def said(phase: str) -> Callable[..., bool]:
    """Whether a message to the other host was the one about that phase."""
    return lambda _result, _link, **message: message.get("phase") == phase


def event(name: str) -> Callable[..., bool]:
    """Whether the controller was told of that event."""
    return lambda _result, _controller, told, **_facts: told == name


HALTS: dict[str, tuple[str, Callable[[], None]]] = {
    "frozen": ("source", lambda: after(source.Controller, "event", event("frozen"))),
    "dumped": ("source", lambda: after(source.Controller, "event", event("dumped"))),
    "sent": ("destination", lambda: after(destination.Link, "receive", lambda got, *_: "images" in got)),
    "received": ("destination", lambda: after(destination.Link, "send", said("received"))),
    "restoring": (
        "destination",
        lambda: after(destination.Trigger, "say", lambda _r, _t, word: word == "go"),
    ),
    "restored": ("destination", lambda: after(destination.Link, "send", said("restored"))),
    "decided": ("gateway", lambda: after(gateway.Routes, "switch")),
    "committed": ("destination", lambda: after(destination.Link, "send", said("committed"))),
}
"""By moment: whose agent is held, and how."""

if __name__ == "__main__":
    if MOMENT in HALTS and HALTS[MOMENT][0] == sys.argv[1]:
        HALTS[MOMENT][1]()
    import sealift_agent.begin  # noqa: F401 - the agent's own `__main__`, under another name
