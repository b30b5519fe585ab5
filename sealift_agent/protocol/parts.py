"""What orders and answers are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .words import Json, Outcome


@dataclass(frozen=True)
class Endpoint:
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
class ImageSent:
    """How many bytes of an image were sent, and why the destination's Docker has not loaded it, if it has not."""

    sent_bytes: int
    refused: Optional[str] = None


@dataclass(frozen=True)
class Dumped:
    """One round of pre-dump: CRIU's statistics (`images.dump_stats`), and the bytes that were sent, compressed if so.

    `whole` says why writes to huge pages count for all of them, if they do.
    """

    statistics: dict[str, int]
    packed_bytes: int
    whole: Optional[str]


@dataclass(frozen=True)
class Removed:
    """`page_bytes`: how much memory was fetched after the commit."""

    page_bytes: int


@dataclass(frozen=True)
class Waited:
    """How long restored processes have waited for pages that followed, in nanoseconds since all were restored.

    `most_ns`: the process that has waited most, all its waits together. `longest_ns`: the longest wait for one page.
    `faults`: how many waits. `complete_ns`: until the last page was there.
    """

    most_ns: int
    longest_ns: int
    faults: int
    complete_ns: int


@dataclass(frozen=True)
class Finished:
    """What Docker says of the container at the destination. `waited`: null where memory was complete before it ran."""

    status: str
    pid: int
    health: Optional[str]
    waited: Optional[Waited] = None


@dataclass(frozen=True)
class VolumeFound:
    """A volume as a host has it. `content`: empty, left, taken, here or other; see `volume_marks`."""

    driver: str
    options: dict[str, str]
    content: str
    lineage: Optional[str]


@dataclass(frozen=True)
class PathFound:
    """What lies at a path. `kind`: directory, file, socket, device, pipe, kernel (as /proc and /sys), missing.

    `empty`: whether a directory or a file has nothing in it. `digest`: SHA-256 of a file up to 1 MiB, hexadecimal.
    """

    kind: str
    empty: bool = False
    digest: Optional[str] = None


@dataclass(frozen=True)
class HostFacts:
    """What a host is and has. `criu_problem`: what `criu check` says if it fails; `criu` is null without CRIU.

    `cgroup`: the version of its control groups. `huge_free_bytes`: free huge pages of all sizes, with what may be added
    on demand. `profiles`: AppArmor's that are loaded, each with a hash of its policy; null without AppArmor. `selinux`:
    enforcing, permissive, or empty without SELinux. `dirty_tracking` and `lazy`: whether CRIU can have soft-dirty bits
    and userfaultfd. `guarded`: whether the rules of the firewall are loaded. `wrapper`: whether Sealift's programs are
    installed. `interposable`: whether the library that is loaded into CRIU is there or can be made. `droppable`:
    whether processes can have memory that the kernel may drop.
    """

    kernel: str
    machine: str
    cpu_flags: list[str]
    memory_available_bytes: int
    disk_free_bytes: int
    cgroup: int
    profiles: Optional[dict[str, str]]
    selinux: str
    huge_free_bytes: int
    criu: Optional[str]
    criu_problem: Optional[str]
    dirty_tracking: bool
    lazy: bool
    rsync: bool
    guarded: bool
    wrapper: bool
    interposable: bool
    droppable: bool


@dataclass(frozen=True)
class Uses:
    """What a container's processes hold that matters for a dump. Holders are named so: "redis-server, pid 12".

    Counted are `processes`, their `threads`, `opened` descriptors, `sockets`, and `areas` of memory (lines of maps).
    `tmpfs_bytes` is what its mounted tmpfs hold.

    `outside`: processes that `docker exec` has started, which are in nothing else here. `unwatchable`: who watches a
    file that can't be found again. `mounts`: mount point to type of file system. `multicast`: IPv4 groups. The other
    tables have a kind (`sealift_agent.processes`) and its holders: open `descriptors`; `mappings` that are no plain
    memory or file; `namespaces` of their own; control `groups` outside of the container's; `states` (traced, stopped,
    seccomp, speculation); AppArmor `profiles`. `unlinked`: files that are open or mapped and have no name any more,
    each with its holder, and the bytes that it has on disk or in memory.
    """

    processes: int
    threads: int
    opened: int
    sockets: int
    areas: int
    memory_bytes: int
    tmpfs_bytes: int
    locked_bytes: int
    huge_bytes: int
    timers: int
    outside: list[str]
    unwatchable: list[str]
    mounts: dict[str, str]
    multicast: list[str]
    descriptors: dict[str, list[str]]
    mappings: dict[str, list[str]]
    namespaces: dict[str, list[str]]
    groups: dict[str, list[str]]
    states: dict[str, list[str]]
    profiles: dict[str, list[str]]
    unlinked: dict[str, int]


@dataclass(frozen=True)
class ContainerFacts:
    """What a container's processes hold. `limits_unreadable`: CRIU can't read their resource limits there.

    `network`: what its network namespace has that Docker has not put there.
    """

    uses: Uses
    limits_unreadable: bool
    network: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DirtyPoint:
    """How many distinct bytes of memory were dirty so long after none was."""

    seconds: float
    dirty_bytes: int


@dataclass(frozen=True)
class MemorySample:
    """What a dump takes, and how it gets dirty.

    `how` it was found: "soft-dirty", "referenced" (an upper bound), or "" where nothing was sampled.
    """

    dump_bytes: int
    how: str
    points: list[DirtyPoint]


@dataclass(frozen=True)
class LinkSample:
    """What a link carries, over so many connections. `bytes_s` is null where that is not known; `problem` says why.

    `sent_bytes`: what was sent to find out.
    """

    bytes_s: Optional[float] = None
    sent_bytes: int = 0
    streams: int = 1
    problem: str = ""


@dataclass(frozen=True)
class Surveyed:
    """A container's memory and the link to the other host, sampled in the same moment."""

    memory: MemorySample
    link: LinkSample


@dataclass(frozen=True)
class Route:
    """Who has an address: a WireGuard key, and the host that it is of."""

    peer: str
    host: str


@dataclass(frozen=True)
class HostKey:
    """A host's WireGuard key that took the place of the one in the gateway's configuration."""

    peer: str
    tunnel: str
    endpoint: str


@dataclass(frozen=True)
class Record:
    """The gateway's record: `routes` by address, `decisions` by migration, `peers` by host.

    Of a group that is not decided: `groups` (each migration to all of them) and `asked` (the moves of those that are
    ready).
    """

    routes: dict[str, Route]
    decisions: dict[str, Outcome]
    peers: dict[str, HostKey]
    groups: dict[str, list[str]]
    asked: dict[str, Move]


@dataclass(frozen=True)
class Noted:
    """Facts for who has to recover a migration: see `Unfinished`. What is null is not noted."""

    source: Optional[str] = None
    destination: Optional[str] = None
    address: Optional[str] = None
    container: Optional[str] = None
    name: Optional[str] = None
    image: Optional[str] = None
    missing: Optional[list[str]] = None
    copy: Optional[str] = None
    volumes: Optional[dict[str, str]] = None
    restart_policy: Optional[Json] = None


@dataclass(frozen=True)
class Unfinished:
    """A migration in the journal. `held`: whether somebody is at it. The rest was noted, up to its `phase`.

    `container` and `copy` are Docker's ids at source and destination. `name`, `image` and `missing` (volumes): what the
    copy is made of. `volumes`: those that were made, and when Docker made them. `restart_policy`: the container's,
    before it was suspended.
    """

    migration: str
    held: bool
    phase: str
    source: str
    destination: str
    address: str
    name: str
    image: str
    missing: list[str]
    container: Optional[str] = None
    copy: Optional[str] = None
    volumes: dict[str, str] = field(default_factory=dict)
    restart_policy: Optional[Json] = None
