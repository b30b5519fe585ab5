"""Somebody who knows nothing of Sealift's code reads the message of a failure: it has the cause, and what to do."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hosts import kill_agent, untouched
from test_failures import STARVED_CRIU
from test_refusals import IO_URING, changed, criu_that_says, sleeper
from test_watches import watching, write

from benchmarks.engine import migrate
from sealift.errors import SealiftError
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from hosts import Hosts

    from sealift.inventory import Inventory

pytestmark = [pytest.mark.root, pytest.mark.netns]

OF_A_PROGRAM = re.compile(
    r"Traceback|Errno|\b[A-Z][A-Za-z]*(Error|Exception)\b|\bNone\b|<[a-z_.]+ object|\bself\b|0x[0-9a-f]{6,}"
)
"""What only a reader of the code understands."""


class Trouble(NamedTuple):
    """What goes wrong: brought about around a migration of the container `box`, which `start` has started.

    `cause` and `remedy` are patterns that the message must have.
    """

    cause: str
    remedy: str
    around: Callable[[Hosts], AbstractContextManager[object]]
    start: Callable[[Hosts], object] = lambda hosts: sleeper(hosts, "box")
    moment: str = ""
    inventory: Callable[[Inventory], Inventory] = lambda known: known


def script(host: str, before: str, after: str) -> Callable[[Hosts], AbstractContextManager[object]]:
    """Something done on a host, and put right again."""

    @contextmanager
    def around(hosts: Hosts) -> Iterator[None]:
        hosts.sh(host, before)
        try:
            yield
        finally:
            hosts.sh(host, after, check=False)

    return around


def starved(hosts: Hosts) -> AbstractContextManager[object]:
    """CRIU gets too little memory for a restore."""
    made = f"cat >/usr/local/sbin/criu <<'end'\n{STARVED_CRIU}end\nchmod 755 /usr/local/sbin/criu"
    return script("destination", made, "rm -f /usr/local/sbin/criu")(hosts)


def nothing(_: Hosts) -> AbstractContextManager[object]:
    """It is in the container, or in the inventory."""
    return nullcontext()


def killed(hosts: Hosts) -> AbstractContextManager[object]:
    """The gateway's agent, at the moment in question."""

    @contextmanager
    def around() -> Iterator[None]:
        kill_agent(hosts, "gateway", "gateway")(None)  # type: ignore[arg-type]
        yield

    return around()


def never_read(hosts: Hosts) -> None:
    """A program that watches files and does not read what it is told."""
    watching(hosts, "never")
    write(hosts, "source")


def taken_name(hosts: Hosts) -> None:
    """Another container of that name is there."""
    sleeper(hosts, "box")
    tag = images.provide(hosts["destination"], images.PYTHON, say=print)
    hosts.docker("destination", "create", "--name", "box", tag, "sh")


def foreign_volume(hosts: Hosts) -> None:
    """Somebody else's data is in a volume of that name."""
    sleeper(hosts, "box", "--volume", "data:/data")
    hosts.docker("destination", "volume", "create", "data")
    hosts.sh("destination", "echo theirs >$(docker volume inspect -f '{{.Mountpoint}}' data)/file")


TROUBLES = {
    "CRIU is missing at the destination": Trouble(
        "CRIU",
        "[Ii]nstall CRIU|sealift host prepare",
        script(
            "destination", "mv /usr/sbin/criu /usr/sbin/criu.away", "mv /usr/sbin/criu.away /usr/sbin/criu"
        ),
    ),
    "another version of CRIU": Trouble(
        r"CRIU 3\.17\.1 is too old",
        r"Install CRIU 4\.2 or later",
        lambda hosts: criu_that_says(hosts, "destination", "3.17.1"),
    ),
    "no room at the destination": Trouble(
        "file system there is full",
        "`df -h .*free space",
        script(
            "destination",
            "mkdir -p /run/sealift/dumps; mount -t tmpfs -o size=4m full /run/sealift/dumps; "
            "touch /run/sealift/dumps/kept",
            "umount /run/sealift/dumps",
        ),
        start=lambda hosts: hosts.redis("box", memory_mb=20),
    ),
    "no memory for the restore": Trouble(
        "too little free memory|limit of the container is too low",
        "`free -m`",
        starved,
        start=lambda hosts: hosts.redis("box", memory_mb=20),
        moment="armed",
    ),
    "io_uring": Trouble(
        "io_uring is in use by python3",
        "switch it off",
        nothing,
        start=lambda hosts: hosts.python("box", IO_URING, options=["--security-opt", "seccomp=unconfined"]),
    ),
    "a bind mount that the inventory does not know": Trouble(
        "bind mount",
        "inventory",
        nothing,
        start=lambda hosts: sleeper(hosts, "box", "--volume", "/srv:/data"),
    ),
    "somebody else's volume": Trouble(
        "the volume 'data' is there already", "`docker volume rm` it there", nothing, start=foreign_volume
    ),
    "a device": Trouble(
        "the container has devices: /dev/net/tun",
        "start the container without it",
        nothing,
        start=lambda hosts: sleeper(hosts, "box", "--device", "/dev/net/tun"),
    ),
    "the name is taken": Trouble(
        "the name 'box' is taken there",
        "Rename or remove it",
        nothing,
        start=taken_name,
    ),
    "an address without an owner": Trouble(
        "is assigned to no host",
        "sealift network assign",
        nothing,
        start=lambda hosts: sleeper(hosts, "box", address="10.77.200.2"),
    ),
    "the gateway's agent ends": Trouble(
        "gateway",
        "[Mm]igrate again",
        killed,
        start=lambda hosts: hosts.redis("box", memory_mb=5),
        moment="armed",
    ),
    "events that nobody reads": Trouble(
        "events of inotify .* nobody reads", "have the program read them", nothing, start=never_read
    ),
    "a host that is down": Trouble(
        r"198\.18\.0\.99",
        "Check that the host is up",
        nothing,
        inventory=lambda known: changed(known, "destination", address="198.18.0.99"),
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_the_message_has_the_cause_and_then_the_remedy(hosts: Hosts, name: str) -> None:
    trouble = TROUBLES[name]
    trouble.start(hosts)
    inventory = trouble.inventory(hosts.inventory)
    with ExitStack() as during, untouched(hosts, "box"):
        hooks = {}
        if trouble.moment:
            hooks[trouble.moment] = lambda _: during.enter_context(trouble.around(hosts))
        else:
            during.enter_context(trouble.around(hosts))
        with pytest.raises(SealiftError) as raised:
            migrate(inventory, hosts.request("box"), hooks)
        during.close()
    said = str(raised.value)
    print(said)
    assert re.search(trouble.cause, said), said
    assert re.search(trouble.remedy, said), said
    assert re.search("source|destination|gateway", said), said
    assert not OF_A_PROGRAM.search(said), said
