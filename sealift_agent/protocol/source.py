"""Orders to the agent of the source, in their order; `Resume` and `Discard` come after one that has died."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .order import Order, belongs_to
from .parts import Decider, Dumped, Endpoint, ImageSent, LogSent, Peer, Removed
from .words import ARMED, CLOSED, CUTOVER, NEW, OPENED, Json, Outcome, Role


@belongs_to(Role.SOURCE, "open", list[str], "a directory for images", allowed=(NEW, OPENED), leads_to=OPENED)
@dataclass(frozen=True)
class OpenSource(Order[list[str]]):
    """Connect to the destination. Answers what the container's standard descriptors lead to.

    `bandwidth` limits what is sent before the freeze, in bytes a second. With `compress` pages are compressed on their
    way; `streams` is over how many connections they go.
    """

    migration: str
    container: str
    peer: Peer
    trees: dict[str, str]
    log: Optional[str]
    bandwidth: Optional[int] = None
    compress: bool = False
    streams: int = 1


@belongs_to(Role.SOURCE, "keep_volumes", dict[str, str], "marks of volumes", allowed=(NEW, OPENED))
@dataclass(frozen=True)
class KeepVolumes(Order[dict[str, str]]):
    """Mark the container's volumes before it goes. Answers the lineage of each."""

    migration: str
    names: list[str]


@belongs_to(Role.SOURCE, "send_image", ImageSent, allowed=(NEW, OPENED))
@dataclass(frozen=True)
class SendImage(Order[ImageSent]):
    """Send the container's image (`docker save`) to the destination, but for the layers that are `left_out`.

    They are named by the digests with which Docker inspects the image.
    """

    reference: str
    endpoint: Endpoint
    bandwidth: Optional[int] = None
    left_out: list[str] = field(default_factory=list)


@belongs_to(Role.SOURCE, "live_pass", int, "the destination's files", allowed=(OPENED,))
@dataclass(frozen=True)
class LivePass(Order[int]):
    """Send the files that differ while the container runs. Answers the bytes sent."""


@belongs_to(Role.SOURCE, "send_log", Optional[LogSent], "the destination's log", allowed=(OPENED,))
@dataclass(frozen=True)
class SendLog(Order[Optional[LogSent]]):
    """Send what was printed since the last time, as `name`, if it is more than `behind` bytes; else answer null."""

    name: str
    behind: int = -1


@belongs_to(Role.SOURCE, "pre_dump", Dumped, "images at the destination", allowed=(OPENED,))
@dataclass(frozen=True)
class PreDump(Order[Dumped]):
    """One round of pre-dump, to the destination's page server at `port`."""

    name: str
    port: int


@belongs_to(Role.SOURCE, "slow_down", Optional[float], "the container's CPU quota", allowed=(OPENED, ARMED))
@dataclass(frozen=True)
class SlowDown(Order[Optional[float]]):
    """Halve what the container uses of the processors. Answers how many are left; null if it is at the least."""


@belongs_to(Role.SOURCE, "gather_pages", int, "huge pages of the container", allowed=(OPENED,))
@dataclass(frozen=True)
class GatherPages(Order[int]):
    """Put small pages together, which makes the dump of a post-copy shorter. Answers the bytes in huge pages."""


@belongs_to(Role.SOURCE, "restart_policy", Json)
@dataclass(frozen=True)
class RestartPolicy(Order[Json]):
    """The container's restart policy: Docker's own object, which is passed on and given back to Docker as it is."""

    container: str


@belongs_to(Role.SOURCE, "arm", None, "the container's restart policy", allowed=(OPENED,), leads_to=ARMED)
@dataclass(frozen=True)
class ArmSource(Order[None]):
    """Start runc and CRIU up to the point where CRIU looks at the processes.

    `pages_port` is where the destination takes the pages, or asks for them in a `post_copy`.
    """

    address: str
    bridge: str
    gateway: Decider
    pages_port: int
    post_copy: bool
    restart_policy: Json


@belongs_to(Role.SOURCE, "go", Outcome, "everything: this is the cutover", allowed=(ARMED,), leads_to=CUTOVER)
@dataclass(frozen=True)
class Go(Order[Outcome]):
    """Freeze, dump, send. Answers the outcome, by the gateway's own word; every phase is told as an event."""


@belongs_to(Role.SOURCE, "decided", None, "which copy runs", allowed=(CUTOVER,))
@dataclass(frozen=True)
class SourceDecided(Order[None]):
    """The outcome, which the controller has from the gateway."""

    outcome: Outcome


@belongs_to(Role.SOURCE, "remove_container", Removed, "the source's copy goes", allowed=(CUTOVER,))
@dataclass(frozen=True)
class RemoveContainer(Order[Removed]):
    """After the commit: remove this host's copy, once its memory is on the other side. May be asked again."""


@belongs_to(Role.SOURCE, "read_logs", dict[str, str], allowed=(OPENED, ARMED, CUTOVER))
@dataclass(frozen=True)
class ReadSourceLogs(Order[dict[str, str]]):
    """After a failure. Answers the ends of CRIU's logs of all dumps, by their names."""


@belongs_to(
    Role.SOURCE, "close", None, "images go; a container that has not committed goes on", leads_to=CLOSED
)
@dataclass(frozen=True)
class CloseSource(Order[None]):
    """Forget the migration."""


@belongs_to(Role.SOURCE, "resume", None, "the container goes on here")
@dataclass(frozen=True)
class Resume(Order[None]):
    """After an agent that was killed, and a decision against the migration."""

    migration: str
    container: str
    address: str
    bridge: str
    restart_policy: Optional[Json] = None


@belongs_to(Role.SOURCE, "discard", None, "this host's copy goes")
@dataclass(frozen=True)
class Discard(Order[None]):
    """After an agent that was killed, and a decision for the migration."""

    migration: str
    container: str
