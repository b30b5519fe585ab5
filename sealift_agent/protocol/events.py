"""What agents tell the controller in between, unasked: one class for each event of a cutover.

Nobody waits for whoever hears of them. On the wire an event is `{"event": name, "at_ns": …}` with its fields beside;
`at_ns` is when it happened, by the monotonic clock of the agent's host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Optional, TypeVar

from .words import Outcome


class Event:
    """An event. Its docstring says what has happened by then."""

    NAME: ClassVar[str]


class Happened(NamedTuple):
    """An event, and when it happened."""

    at_ns: int
    event: Event


EVENTS: dict[str, type[Event]] = {}
"""All of them, by name."""

Kind = TypeVar("Kind", bound=type)


def named(name: str) -> Callable[[Kind], Kind]:
    """Give an event its name."""

    def registered(kind: Kind) -> Kind:
        event: Any = kind
        event.NAME = name
        EVENTS[name] = event
        return kind

    return registered


@named("alive")
@dataclass(frozen=True)
class AtWork(Event):
    """Nothing but that the source is at work: told every other second of its cutover."""


@named("go")
@dataclass(frozen=True)
class Began(Event):
    """The source has begun with its cutover."""


@named("frozen")
@dataclass(frozen=True)
class Frozen(Event):
    """The container is frozen, and its bridge port detached.

    `cut_off`: how many connections the program had closed that still had data to send.
    """

    cut_off: int = 0


@named("dumped")
@dataclass(frozen=True)
class LastDumped(Event):
    """The last files and pages are on their way. `statistics` are CRIU's (`images.dump_stats`).

    `packed_bytes`: what was sent of the pages, where something between counts it.
    """

    file_bytes: int
    statistics: dict[str, int] = field(default_factory=dict)
    packed_bytes: int = 0


@named("sent")
@dataclass(frozen=True)
class ImagesSent(Event):
    """The images are sent, but for the pages: from here on the gateway decides."""

    metadata_bytes: int


@named("received")
@dataclass(frozen=True)
class Received(Event):
    """The destination has all images; `page_bytes` of them are pages of the last dump."""

    page_bytes: int = 0


@named("restored")
@dataclass(frozen=True)
class Restored(Event):
    """The destination has restored the container, cut off. `statistics` are CRIU's (`images.restore_stats`)."""

    restore_ns: int = 0
    statistics: dict[str, int] = field(default_factory=dict)


@named("committed")
@dataclass(frozen=True)
class Committed(Event):
    """The gateway has decided for the migration. `held_packets`: how many it had held; null if it did not say."""

    held_packets: Optional[int] = None


@named("thawed")
@dataclass(frozen=True)
class Thawed(Event):
    """The container goes on at the source, after so long."""

    frozen_ns: int


@named("settled")
@dataclass(frozen=True)
class Settled(Event):
    """The source's cutover has failed, and this is the outcome as far as the source knows."""

    outcome: Outcome


@named("undecided")
@dataclass(frozen=True)
class Undecided(Event):
    """A host asks the gateway and gets no answer."""

    reason: str
