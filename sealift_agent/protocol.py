"""What the controller can ask of an agent: one class for each order, with what it carries and what is answered.

The controller builds an order and sends it (`sealift.host.agents`); the agent gets the same object (`codec`). So a
field that is renamed on one side only is a type error, and not a migration that fails. `docs/protocol.md` is
made from this module (`python -m sealift_agent.table`).

=========== =============================================================================
facts       tells what a host and a container are like; changes nothing
source      has the container, and hands it over
destination gets the container
gateway     has the record: whose the addresses are, what was decided, the journal of migrations
=========== =============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Generic, Optional, TypeVar

VERSION = 1
"""An agent says its own first of all. It changes whenever a field, an order or a meaning does."""

Answer = TypeVar("Answer")
Json = dict[str, Any]
"""A description by Docker, or by the kernel, as it came."""


class Word(str, Enum):
    """A word of the protocol. As a text it is that word, in every Python."""

    def __str__(self) -> str:
        return str(self.value)


class Role(Word):
    """Which agent."""

    FACTS = "facts"
    SOURCE = "source"
    DESTINATION = "destination"
    GATEWAY = "gateway"


class Phase(Word):
    """How far an agent of a migration has come. An order that is not for this phase is refused."""

    NEW = "new"
    PREPARED = "prepared"
    OPENED = "opened"
    ARMED = "armed"
    CUTOVER = "cutover"
    CLOSED = "closed"


PHASES = {
    Phase.NEW: "the agent has just been started",
    Phase.PREPARED: "the destination listens for the source",
    Phase.OPENED: "both hosts are connected: files and memory are sent while the container runs",
    Phase.ARMED: "everything is ready for the freeze",
    Phase.CUTOVER: "the source has been told to begin: from here on the gateway decides",
    Phase.CLOSED: "the migration is forgotten",
}
"""What each of them means."""

NEW, PREPARED, OPENED, ARMED, CUTOVER, CLOSED = Phase


class Outcome(Word):
    """What was decided about a migration. UNDECIDED: the gateway has not told the host that is asked."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNDECIDED = "undecided"


class Order(Generic[Answer]):
    """An order. Its docstring says what is done and what is answered."""

    ROLE: ClassVar[Role]
    NAME: ClassVar[str]
    ANSWER: ClassVar[Any]
    ALLOWED: ClassVar[tuple[Phase, ...]]
    """In which phases of the agent; empty where the phase does not matter."""
    LEADS_TO: ClassVar[Optional[Phase]]
    """The phase of the agent once this is done."""
    CHANGES: ClassVar[str]


ORDERS: dict[tuple[Role, str], type[Order[Any]]] = {}
"""All of them, by role and name."""

Kind = TypeVar("Kind", bound=type)


def _of(
    role: Role,
    name: str,
    answer: object,
    changes: str = "nothing",
    *,
    allowed: tuple[Phase, ...] = (),
    leads_to: Optional[Phase] = None,
) -> Callable[[Kind], Kind]:
    """Give an order its name and its place."""

    def registered(kind: Kind) -> Kind:
        order: Any = kind
        order.ROLE, order.NAME, order.ANSWER, order.CHANGES = role, name, answer, changes
        order.ALLOWED, order.LEADS_TO = allowed, leads_to
        ORDERS[role, name] = order
        return kind

    return registered


# --- what orders and answers are made of ---


@dataclass(frozen=True)
class Door:
    """Where one connection is expected, and the token by which it is admitted."""

    address: str
    port: int
    token: str


@dataclass(frozen=True)
class Peer:
    """Where the destination of a migration expects the source. `password` is that of its rsync daemon."""

    address: str
    port: int
    token: str
    password: str
    rsync_port: int


@dataclass(frozen=True)
class Decider:
    """Where the gateway decides about one migration. `key`: what proves questions and answers, hexadecimal.

    `group`: whether several migrations are decided together.
    """

    address: str
    port: int
    token: str
    key: str
    group: bool


@dataclass(frozen=True)
class Move:
    """What a decision moves: an address of a workload, from the peer `origin` to `peer` (WireGuard keys) on `host`."""

    migration: str
    address: str
    origin: str
    peer: str
    host: str


@dataclass(frozen=True)
class LogPlace:
    """The log that Docker keeps of the container at the destination, and how many bytes of it count."""

    path: str
    marked: int


@dataclass(frozen=True)
class LogSent:
    """How much of the log is at the destination, and how many bytes were sent for it."""

    marked: int
    sent: int


@dataclass(frozen=True)
class Dumped:
    """One round of pre-dump: CRIU's statistics (`images.dump_stats`), and the bytes that were sent, compressed if so.

    `whole` says why writes to huge pages count for all of them, if they do.
    """

    statistics: dict[str, int]
    packed_bytes: int
    whole: Optional[str]


@dataclass(frozen=True)
class Armed:
    """`external_network`: whether a filled network namespace is ready, so that the images are to have none."""

    external_network: bool


@dataclass(frozen=True)
class Removed:
    """`page_bytes`: how much memory was fetched after the commit."""

    page_bytes: int


@dataclass(frozen=True)
class Finished:
    """What Docker says of the container at the destination."""

    status: str
    pid: int
    health: Optional[str]


@dataclass(frozen=True)
class VolumeFound:
    """A volume as a host has it. `content`: empty, left, taken, here or other; see `volume_marks`."""

    driver: str
    options: dict[str, str]
    content: str
    lineage: Optional[str]


# --- facts ---


@_of(Role.FACTS, "host", Json)
@dataclass(frozen=True)
class DescribeHost(Order[Json]):
    """Kernel, CRIU, processor, memory, space of the host."""


@_of(Role.FACTS, "container", Json)
@dataclass(frozen=True)
class DescribeContainer(Order[Json]):
    """What the processes of a container hold that matters for a dump, and how large they are."""

    container: str


@_of(Role.FACTS, "survey", Json)
@dataclass(frozen=True)
class Survey(Order[Json]):
    """How much memory the container changes in a second, and meanwhile how much the link to `door` carries."""

    container: str
    tracked: bool
    door: Optional[Door]


@_of(Role.FACTS, "receive_rate", Door, "listens for one measurement")
@dataclass(frozen=True)
class ReceiveRate(Order[Door]):
    """Wait for a measurement of the link. Answers where."""

    address: str


@_of(Role.FACTS, "exists", list[bool])
@dataclass(frozen=True)
class Exist(Order[list[bool]]):
    """Which of these are directories on the host."""

    paths: list[str]


@_of(Role.FACTS, "volumes", dict[str, Optional[VolumeFound]])
@dataclass(frozen=True)
class DescribeVolumes(Order[dict[str, Optional[VolumeFound]]]):
    """What is to be known of volumes before a migration; null for one that is not there."""

    names: list[str]


@_of(Role.FACTS, "tree_bytes", int)
@dataclass(frozen=True)
class TreeBytes(Order[int]):
    """How much directories hold, in bytes on disk."""

    paths: list[str]


@_of(Role.FACTS, "too_deep", list[str])
@dataclass(frozen=True)
class TooDeep(Order[list[str]]):
    """Which of the directories hold a file whose name, relative to them, is longer than `name_bytes`."""

    paths: list[str]
    name_bytes: int


# --- source ---


@_of(Role.SOURCE, "open", list[str], "a directory for images", allowed=(NEW, OPENED), leads_to=OPENED)
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


@_of(Role.SOURCE, "keep_volumes", dict[str, str], "marks of volumes", allowed=(NEW, OPENED))
@dataclass(frozen=True)
class KeepVolumes(Order[dict[str, str]]):
    """Mark the container's volumes before it goes. Answers the lineage of each."""

    migration: str
    names: list[str]


@_of(Role.SOURCE, "send_image", int, allowed=(NEW, OPENED))
@dataclass(frozen=True)
class SendImage(Order[int]):
    """Send the container's image (`docker save`) to the destination. Answers the bytes sent."""

    reference: str
    door: Door
    bandwidth: Optional[int] = None


@_of(Role.SOURCE, "live_pass", int, "the destination's files", allowed=(OPENED,))
@dataclass(frozen=True)
class LivePass(Order[int]):
    """Send the files that differ while the container runs. Answers the bytes sent."""


@_of(Role.SOURCE, "send_log", Optional[LogSent], "the destination's log", allowed=(OPENED,))
@dataclass(frozen=True)
class SendLog(Order[Optional[LogSent]]):
    """Send what was printed since the last time, as `name`, if it is more than `behind` bytes; else answer null."""

    name: str
    behind: int = -1


@_of(Role.SOURCE, "pre_dump", Dumped, "images at the destination", allowed=(OPENED,))
@dataclass(frozen=True)
class PreDump(Order[Dumped]):
    """One round of pre-dump, to the destination's page server at `port`."""

    name: str
    port: int


@_of(Role.SOURCE, "slow_down", Optional[float], "the container's CPU quota", allowed=(OPENED, ARMED))
@dataclass(frozen=True)
class SlowDown(Order[Optional[float]]):
    """Halve what the container uses of the processors. Answers how many are left; null if it is at the least."""


@_of(Role.SOURCE, "gather_pages", int, "huge pages of the container", allowed=(OPENED,))
@dataclass(frozen=True)
class GatherPages(Order[int]):
    """Put small pages together, which makes the dump of a post-copy shorter. Answers the bytes in huge pages."""


@_of(Role.SOURCE, "restart_policy", Json)
@dataclass(frozen=True)
class RestartPolicy(Order[Json]):
    """The container's restart policy as Docker describes it."""

    container: str


@_of(Role.SOURCE, "arm", None, "the container's restart policy", allowed=(OPENED,), leads_to=ARMED)
@dataclass(frozen=True)
class ArmSource(Order[None]):
    """Start runc and CRIU up to the point where CRIU looks at the processes.

    `pages_port` is where the destination takes the pages, or asks for them in a `post_copy`. `external_network`: the
    network namespace is left out of the images.
    """

    address: str
    bridge: str
    gateway: Decider
    pages_port: int
    external_network: bool
    post_copy: bool
    restart_policy: Json


@_of(Role.SOURCE, "go", Outcome, "everything: this is the cutover", allowed=(ARMED,), leads_to=CUTOVER)
@dataclass(frozen=True)
class Go(Order[Outcome]):
    """Freeze, dump, send. Answers the outcome, by the gateway's own word; every phase is told as an event."""


@_of(Role.SOURCE, "decided", None, "which copy runs", allowed=(CUTOVER,))
@dataclass(frozen=True)
class SourceDecided(Order[None]):
    """The outcome, which the controller has from the gateway."""

    outcome: Outcome


@_of(Role.SOURCE, "remove_container", Removed, "the source's copy goes", allowed=(CUTOVER,))
@dataclass(frozen=True)
class RemoveContainer(Order[Removed]):
    """After the commit: remove this host's copy, once its memory is on the other side. May be asked again."""


@_of(Role.SOURCE, "close", None, "images go; a container that has not committed goes on", leads_to=CLOSED)
@dataclass(frozen=True)
class CloseSource(Order[None]):
    """Forget the migration."""


@_of(Role.SOURCE, "resume", None, "the container goes on here")
@dataclass(frozen=True)
class Resume(Order[None]):
    """After an agent that was killed, and a decision against the migration."""

    migration: str
    container: str
    address: str
    bridge: str
    restart_policy: Optional[Json] = None


@_of(Role.SOURCE, "discard", None, "this host's copy goes")
@dataclass(frozen=True)
class Discard(Order[None]):
    """After an agent that was killed, and a decision for the migration."""

    migration: str
    container: str


# --- destination ---


@_of(Role.DESTINATION, "receive_image", Door, "Docker's images", allowed=(NEW, PREPARED))
@dataclass(frozen=True)
class ReceiveImage(Order[Door]):
    """Take one image from the source and load it. Answers where the source is to send it."""

    address: str


@_of(
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


@_of(Role.DESTINATION, "take_volumes", None, "marks of volumes", allowed=(NEW, PREPARED, OPENED))
@dataclass(frozen=True)
class TakeVolumes(Order[None]):
    """Before the first byte comes: the volumes are this migration's until it is decided."""

    migration: str
    lineages: dict[str, str]
    created: list[str]


@_of(
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


@_of(Role.DESTINATION, "accept", None, allowed=(PREPARED,), leads_to=OPENED)
@dataclass(frozen=True)
class Accept(Order[None]):
    """Wait for the source's connection."""


@_of(Role.DESTINATION, "start_page_server", int, "listens for pages", allowed=(OPENED, ARMED))
@dataclass(frozen=True)
class StartPageServer(Order[int]):
    """Take the pages of the next dump, on top of the `previous` one's images. Answers the port."""

    name: str
    previous: Optional[str]
    compress: bool = False
    streams: int = 1


@_of(Role.DESTINATION, "finish_page_server", None, "images", allowed=(OPENED, ARMED))
@dataclass(frozen=True)
class FinishPageServer(Order[None]):
    """Wait until all pages of the last dump are there."""


@_of(Role.DESTINATION, "read_pages", int, "listens for the source's pages", allowed=(ARMED,))
@dataclass(frozen=True)
class ReadPages(Order[int]):
    """Pages are asked for at the source (post-copy). Answers the port where it is to connect for that."""


@_of(
    Role.DESTINATION,
    "arm",
    Armed,
    "the container is started up to its restore, and its port leaves the bridge",
    allowed=(OPENED,),
    leads_to=ARMED,
)
@dataclass(frozen=True)
class ArmDestination(Order[Armed]):
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


@_of(Role.DESTINATION, "decided", None, "which copy runs", allowed=(ARMED,))
@dataclass(frozen=True)
class DestinationDecided(Order[None]):
    """The outcome, which the controller has from the gateway."""

    outcome: Outcome


@_of(Role.DESTINATION, "finish", Finished, "marks of volumes, the restart policy", allowed=(ARMED,))
@dataclass(frozen=True)
class Finish(Order[Finished]):
    """After the commit: wait until Docker has noticed, and look at the container."""


@_of(
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


@_of(Role.DESTINATION, "complete", str, "the container is reached here")
@dataclass(frozen=True)
class Complete(Order[str]):
    """After an agent that was killed, and a decision for the migration. Answers Docker's word for the container."""

    migration: str
    container: str
    address: str
    bridge: str
    restart_policy: Optional[Json] = None


@_of(Role.DESTINATION, "sweep", None, "this host's copy goes, with the volumes made for it")
@dataclass(frozen=True)
class SweepCopy(Order[None]):
    """After an agent that was killed, and a decision against the migration."""

    migration: str
    container: str
    volumes: dict[str, str]


@_of(Role.DESTINATION, "sweep_unnamed", None, "this host's copy goes, with empty volumes")
@dataclass(frozen=True)
class SweepUnnamed(Order[None]):
    """The same where nobody wrote down what was made: a container of that name and image, if it never ran."""

    migration: str
    name: str
    image: str
    volumes: list[str]


# --- gateway ---


@_of(Role.GATEWAY, "assign", Json, "the record; WireGuard's allowed addresses")
@dataclass(frozen=True)
class Assign(Order[Json]):
    """Give an address to a host outside of any migration. Answers the route."""

    address: str
    peer: str
    host: str


@_of(Role.GATEWAY, "release", None, "the record; WireGuard's allowed addresses")
@dataclass(frozen=True)
class Release(Order[None]):
    """Take an address back."""

    address: str


@_of(Role.GATEWAY, "adopt", None, "the record; WireGuard's peers")
@dataclass(frozen=True)
class AdoptKey(Order[None]):
    """A host has a new WireGuard key, which takes the place of the one before."""

    host: str
    peer: str
    tunnel: str
    endpoint: str


@_of(Role.GATEWAY, "show", Json)
@dataclass(frozen=True)
class ShowRecord(Order[Json]):
    """The record: `routes`, `decisions`, `peers`."""


@_of(Role.GATEWAY, "restore", dict[str, str], "WireGuard's peers and addresses")
@dataclass(frozen=True)
class CarryOut(Order[dict[str, str]]):
    """Have WireGuard do what is on record. Answers what it did not do: addresses, hosts, each with why."""


@_of(Role.GATEWAY, "check_peer", None)
@dataclass(frozen=True)
class CheckPeer(Order[None]):
    """Refused where WireGuard has no such peer."""

    peer: str


@_of(Role.GATEWAY, "decide", int, "listens for the hosts' questions; groups on record")
@dataclass(frozen=True)
class Decide(Order[int]):
    """Answer the two hosts of a migration. `members`: the migrations that are decided with it. Answers the port."""

    address: str
    token: str
    key: str
    move: Move
    members: Optional[list[str]] = None
    port: int = 0


@_of(Role.GATEWAY, "call_off", Outcome, "the record, unless it is decided already")
@dataclass(frozen=True)
class CallOff(Order[Outcome]):
    """Decide against a migration that is not decided yet. Answers the outcome on record."""

    migration: str


@_of(Role.GATEWAY, "end", None, "listens no more; holds no packets")
@dataclass(frozen=True)
class End(Order[None]):
    """No host asks any more."""


@_of(Role.GATEWAY, "sweep", None, "holds no packets")
@dataclass(frozen=True)
class ReleaseHeld(Order[None]):
    """After an agent that was killed: packets for the address are held no more."""

    address: str


@_of(Role.GATEWAY, "guarded", bool)
@dataclass(frozen=True)
class Guarded(Order[bool]):
    """Whether the rules of the firewall are loaded."""


@_of(Role.GATEWAY, "enter", list[str], "takes places")
@dataclass(frozen=True)
class Enter(Order[list[str]]):
    """Take one place of each name, of as many as its limit says, or none. Answers the names that are full."""

    limits: dict[str, int]


@_of(Role.GATEWAY, "note", None, "the journal")
@dataclass(frozen=True)
class Note(Order[None]):
    """Write a transition of a migration into the journal, with facts for who has to recover it."""

    migration: str
    phase: str
    facts: Json = field(default_factory=dict)


@_of(Role.GATEWAY, "unfinished", list[Json])
@dataclass(frozen=True)
class ListUnfinished(Order[list[Json]]):
    """All migrations in the journal, oldest first, with all facts; `held` tells whether a controller is at it."""


@_of(Role.GATEWAY, "take", bool, "whose the migration is")
@dataclass(frozen=True)
class TakeOver(Order[bool]):
    """Take over a migration whose controller has died; false while it lives."""

    migration: str
