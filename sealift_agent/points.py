"""The points of a cutover: at each of them an agent can be held, so that something can be broken exactly there.

Whoever is root on the host names a point by a file in `HOLD`, before the agent comes to it. The agent makes the file
`at` there and goes on when there is a file `go`. Nobody else can: the directory above is root's. Without the file a
point costs one look at the file system.
"""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path

HOLD = Path("/run/sealift/halt")
LONGEST_S = 60
POLL_S = 0.005


class Point(Enum):
    """What an agent has just done."""

    FROZEN = "frozen"
    DUMPED = "dumped"
    SENT = "sent"
    """The destination has the list of the last images, and none of them."""
    RECEIVED = "received"
    RESTORING = "restoring"
    """CRIU has been told to restore."""
    RESTORED = "restored"
    DECIDED = "decided"
    """On the gateway's disk; nobody has been told."""
    COMMITTED = "committed"


def passed(point: Point) -> None:
    """The agent is at this point. Returns at once, unless it is to be held there."""
    if (HOLD / point.value).exists():
        wait(HOLD)


def wait(place: Path) -> None:
    """Say in this directory that somebody is held, and wait until he may go on, or `LONGEST_S` are over."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "at").touch()
    deadline = time.monotonic() + LONGEST_S
    while not (place / "go").exists() and time.monotonic() < deadline:
        time.sleep(POLL_S)
