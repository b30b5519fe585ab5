"""Orders to the agent of the destination; the last three come after one that has died."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .order import Order, belongs_to
from .parts import Decider, Endpoint, Finished, LogPlace, Peer
from .words import ARMED, CLOSED, CUTOVER, NEW, OPENED, PREPARED, Json, Outcome, Role


@belongs_to(Role.DESTINATION, "receive_image", Endpoint, "Docker's images", allowed=(NEW, PREPARED))
@dataclass(frozen=True)
class ReceiveImage(Order[Endpoint]):
    """Take one image from the source and load it. Answers where the source is to send it."""

    address: str


@belongs_to(
    Role.DESTINATION,
    "adopt",
    None,
    "what is removed if the migration does not commit",
    allowed=(NEW, PREPARED, OPENED),
)
@dataclass(frozen=True)
class Adopt(Order[None]):
    """Volumes, and then a container, were made for this migration. `volumes`: names, and when Docker made them."""

    container: Optional[str]
    volumes: dict[str, str]


@belongs_to(Role.DESTINATION, "take_volumes", None, "marks of volumes", allowed=(NEW, PREPARED, OPENED))
@dataclass(frozen=True)
class TakeVolumes(Order[None]):
    """Before the first byte comes: the volumes are this migration's until it is decided."""

    migration: str
    lineages: dict[str, str]
    created: list[str]


@belongs_to(
    Role.DESTINATION,
    "prepare",
    Peer,
    "listens for the source; a directory for images",
    allowed=(NEW, PREPARED),
    leads_to=PREPARED,
)
@dataclass(frozen=True)
class Prepare(Order[Peer]):
    """Listen on the tunnel address for files and for the source's agent. Answers where."""

    migration: str
    address: str
    trees: dict[str, str]


@belongs_to(Role.DESTINATION, "accept", None, allowed=(PREPARED,), leads_to=OPENED)
@dataclass(frozen=True)
class Accept(Order[None]):
    """Wait for the source's connection."""


@belongs_to(Role.DESTINATION, "start_page_server", int, "listens for pages", allowed=(OPENED, ARMED))
@dataclass(frozen=True)
class StartPageServer(Order[int]):
    """Take the pages of the next dump, on top of the `previous` one's images. Answers the port."""

    name: str
    previous: Optional[str]
    compress: bool = False
    streams: int = 1


@belongs_to(Role.DESTINATION, "finish_page_server", None, "images", allowed=(OPENED, ARMED))
@dataclass(frozen=True)
class FinishPageServer(Order[None]):
    """Wait until all pages of the last dump are there."""


@belongs_to(Role.DESTINATION, "read_pages", int, "listens for the source's pages", allowed=(ARMED,))
@dataclass(frozen=True)
class ReadPages(Order[int]):
    """Pages are asked for at the source (post-copy). Answers the port where it is to connect for that."""


@belongs_to(
    Role.DESTINATION,
    "arm",
    None,
    "the container is started up to its restore, and its port leaves the bridge",
    allowed=(OPENED,),
    leads_to=ARMED,
)
@dataclass(frozen=True)
class ArmDestination(Order[None]):
    """Start the container under Docker up to the point where the images are needed.

    `descriptors` is what the container's standard descriptors lead to at the source. With `lazy` the container runs
    before its memory is in. It gets its `restart_policy` once it has won.
    """

    container: str
    address: str
    bridge: str
    gateway: Decider
    log: Optional[LogPlace]
    descriptors: list[str]
    lazy: bool
    restart_policy: Json


@belongs_to(Role.DESTINATION, "decided", None, "which copy runs", allowed=(ARMED,))
@dataclass(frozen=True)
class DestinationDecided(Order[None]):
    """The outcome, which the controller has from the gateway."""

    outcome: Outcome


@belongs_to(Role.DESTINATION, "finish", Finished, "marks of volumes, the restart policy", allowed=(ARMED,))
@dataclass(frozen=True)
class Finish(Order[Finished]):
    """After the commit: wait until Docker has noticed, and look at the container."""


@belongs_to(Role.DESTINATION, "read_logs", dict[str, str], allowed=(OPENED, ARMED, CUTOVER))
@dataclass(frozen=True)
class ReadDestinationLogs(Order[dict[str, str]]):
    """After a failure. Answers the ends of CRIU's logs of page servers and of the restore, by their names."""


@belongs_to(
    Role.DESTINATION,
    "close",
    None,
    "images go; without a commit the copy goes, too",
    leads_to=CLOSED,
)
@dataclass(frozen=True)
class CloseDestination(Order[None]):
    """Forget the migration. `called_off`: the controller has it from the gateway that it was rolled back."""

    called_off: bool = False


@belongs_to(Role.DESTINATION, "complete", str, "the container is reached here")
@dataclass(frozen=True)
class Complete(Order[str]):
    """After an agent that was killed, and a decision for the migration. Answers Docker's word for the container."""

    migration: str
    container: str
    address: str
    bridge: str
    restart_policy: Optional[Json] = None


@belongs_to(Role.DESTINATION, "sweep", None, "this host's copy goes, with the volumes made for it")
@dataclass(frozen=True)
class SweepCopy(Order[None]):
    """After an agent that was killed, and a decision against the migration."""

    migration: str
    container: str
    volumes: dict[str, str]


@belongs_to(Role.DESTINATION, "sweep_unnamed", None, "this host's copy goes, with empty volumes")
@dataclass(frozen=True)
class SweepUnnamed(Order[None]):
    """The same where nobody wrote down what was made: a container of that name and image, if it never ran."""

    migration: str
    name: str
    image: str
    volumes: list[str]
