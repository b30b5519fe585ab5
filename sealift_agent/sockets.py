"""What of the container's sockets CRIU 4.2 loses, read at the source and put back at the destination.

See `network.options`, `network.datagrams` and `files.renamed`. It travels as a file among the images (`carried`), if
there is anything.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from . import cgroup, held, pidfd, proc, unread
from .carried import Carried, read, written
from .files import renamed
from .network import datagrams, options
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .carried import Place
    from .held import Held
    from .network.datagrams import Address, Datagram
    from .network.options import Kind, Value

SOCKETS = "sockets.json"

AGAIN_S = 0.005
"""How long options of sockets that are known from before the freeze are read once more, in the freeze."""


class Source:
    """read while the container runs (`read_ahead`) → read in the freeze (`write`)."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Value]] = {}
        self._usual: dict[Kind, dict[str, Value]] = {}

    def read_ahead(self, pids: Sequence[int]) -> None:
        """Before the freeze: options take a tenth of a millisecond for each socket, and change little."""
        self._known = {}
        for one in held.sockets(held.descriptors(pids)).values():
            with (
                contextlib.suppress(OSError),
                pidfd.borrow_socket(one.pid, one.number) as found,
            ):  # closed, or has no options
                self._known[one.target] = self._options(one.pid, found, options.kind(found))

    def write(self, images: Path, pids: Sequence[int], address: str) -> None:
        """In the freeze: write what the destination needs among the images. `address` is the container's own.

        AgentError for what would be lost.
        """
        found = list(held.descriptors(pids))
        waits = unread.events(found)
        carried = self._read(held.sockets(found), address, waits)
        if waits:
            raise AgentError(unread.why(waits), "final dump")
        if any(carried):
            (images / SOCKETS).write_bytes(written(carried))

    def _read(self, sockets: dict[str, Held], address: str, waits: dict[Held, str]) -> Carried:
        """What is carried. Connections whose end nobody has read are put to `waits`."""
        inside = {pid: proc.number_inside(pid) for pid in {one.pid for one in sockets.values()}}
        carried = Carried([], [], [])
        ends: list[Ends] = []
        until = time.monotonic() + AGAIN_S
        for target, one in sockets.items():
            try:
                found = pidfd.borrow_socket(one.pid, one.number)
            except OSError:  # of a family that has no names for its sockets
                continue
            place = (inside[one.pid], one.number)
            with found:
                which = options.kind(found)
                if unread.is_end(found, which):
                    waits[one] = unread.END
                kept = self._known.get(target)
                if kept is None or time.monotonic() < until:
                    kept = self._options(one.pid, found, which)
                if kept:
                    carried.options.append((place, kept))
                if which[0] == socket.AF_UNIX and (name := renamed.needed(found)) is not None:
                    carried.names.append((place, name))
                elif which[0] in options.INTERNET and which[1] == socket.SOCK_DGRAM:
                    ends += _queued(place, found, which, address, carried.datagrams)
        for place, waiting in carried.datagrams:
            _must_be_alone(place, waiting, ends)
        return carried

    def _options(self, pid: int, found: socket.socket, which: Kind) -> dict[str, Value]:
        if which not in self._usual:
            self._usual[which] = options.defaults(pid, which)
        return options.read(found, which, self._usual[which])


class Ends(NamedTuple):
    """A socket of UDP: its place, its own address, and its peer's if it is connected."""

    place: Place
    own: Address
    peer: Address | None


def _queued(
    place: Place, found: socket.socket, which: Kind, address: str, waits: list[tuple[Place, list[Datagram]]]
) -> Iterator[Ends]:
    """Put to `waits` what waits in this socket's queue. Its ends, if it is one of UDP."""
    if which[2] == socket.IPPROTO_UDP:
        if waiting := datagrams.waiting(found, address):
            waits.append((place, waiting))
        yield Ends(place, *datagrams.ends(found))
    elif datagrams.is_waiting(found):
        raise AgentError(
            "packets wait unread at a socket of ICMP or UDP-Lite, which CRIU would lose: try again once they are read",
            "final dump",
        )


def _must_be_alone(place: Place, waiting: list[Datagram], ends: list[Ends]) -> None:
    """The kernel gives a datagram to the socket that fits best: no other one may fit as well."""
    mine = next(one for one in ends if one.place == place)
    for other in ends:
        if (
            other is mine
            or other.own[1] != mine.own[1]
            or (mine.peer is not None and other.peer != mine.peer)
        ):
            continue
        for one in waiting:
            if other.peer in {None, one.sender} and other.own[0] in {*datagrams.ANY, one.receiver[0]}:
                raise AgentError(
                    f"datagrams wait unread at UDP port {mine.own[1]}, which several sockets share, and can't be "
                    "given to the same one at the destination: try again once they are read",
                    "final dump",
                )


class Restored:
    """What was carried, for the restored processes: put back before the decision (`put_back`), the rest after (`late`).

    AgentError when it is made of what can't be understood.
    """

    def __init__(self, images: Path) -> None:
        self._carried = Carried([], [], [])
        with contextlib.suppress(FileNotFoundError):
            self._carried = read((images / SOCKETS).read_bytes())
        self._first: Callable[[], int] | None = None
        self._pids: dict[int, int] = {}

    def put_back(self, first: Callable[[], int]) -> None:
        """`first` finds the container's first process. AgentError for what can't be put back as it was."""
        self._first = first
        for place, name in self._carried.names:
            for found in self._opened(place):
                renamed.rename(found, name, f"/proc/{first()}/root")
        for place, waiting in self._carried.datagrams:
            for found in self._opened(place):
                datagrams.send_again(first(), found, waiting)
        for place, wanted in self._carried.options:
            if not all(options.BY_NAME[name].late for name in wanted):
                for found in self._opened(place):
                    options.set_differing(found, wanted, late=False)

    def late(self) -> None:
        """After the commit: what makes no difference before anybody reaches the container. What fails is left so."""
        for place, wanted in self._carried.options:
            if any(options.BY_NAME[name].late for name in wanted):
                with contextlib.suppress(AgentError, OSError):
                    for found in self._opened(place):
                        options.set_differing(found, wanted, late=True)

    def _processes(self) -> dict[int, int]:
        """The restored processes by their numbers in the container, looked for when the first one is asked for."""
        if not self._pids and self._first is not None:
            group = cgroup.of_process(self._first())
            self._pids = {proc.number_inside(pid): pid for pid in cgroup.pids(group)}
        return self._pids

    def _opened(self, place: Place) -> Iterator[socket.socket]:
        """A restored socket. None if the program, which runs, has closed it by now, or ended."""
        pid = self._processes().get(place[0])
        if pid is None:
            return
        try:
            found = pidfd.borrow_socket(pid, place[1])
        except OSError:
            return
        with found:
            yield found
