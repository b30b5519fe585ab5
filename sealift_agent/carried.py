"""The list of what of the container's sockets is carried beside CRIU's images, checked before anything acts on it.

A JSON object with three lists. Each entry begins with a process, by its number in the container, and the number of one
of its descriptors.

========== ============================================================================================
list       what follows in an entry
========== ============================================================================================
options    an object: a number, or bytes in hexadecimal digits, by the name of the option
datagrams  a list of them: sender, its port, receiver, its port, hops, type of service, data in hexadecimal
names      the present name of the socket's file, absolute
========== ============================================================================================
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .messages import Misunderstood, parse
from .network.datagrams import MOST_BYTES, Datagram
from .network.options import BY_NAME, BYTES, NUMBER, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 1 << 20
"""Of processes, descriptors, sockets, datagrams."""

Place = tuple[int, int]


class Carried(NamedTuple):
    """Each list: a socket's place (process, descriptor), and what belongs to it."""

    options: list[tuple[Place, dict[str, Value]]]
    datagrams: list[tuple[Place, list[Datagram]]]
    names: list[tuple[Place, str]]


def written(carried: Carried) -> bytes:
    """The list as it travels."""
    return json.dumps(
        {
            "options": [
                [*place, {name: _encoded(value) for name, value in kept.items()}]
                for place, kept in carried.options
            ],
            "datagrams": [
                [
                    *place,
                    [[*one.sender, *one.receiver, one.hops, one.service, one.data.hex()] for one in waiting],
                ]
                for place, waiting in carried.datagrams
            ],
            "names": [[*place, name] for place, name in carried.names],
        }
    ).encode()


def _encoded(value: Value) -> int | str:
    return value.hex() if isinstance(value, bytes) else value


def read(data: bytes) -> Carried:
    """The list as it came. Misunderstood for anything else."""
    message = parse(data)
    if set(message) != {"options", "datagrams", "names"}:
        _wrong("it has other lists")
    return Carried(
        [(place, _options(value)) for place, value in _entries(message, "options")],
        [(place, _datagrams(value)) for place, value in _entries(message, "datagrams")],
        [(place, _name(value)) for place, value in _entries(message, "names")],
    )


def _entries(message: Mapping[str, Any], which: str) -> list[tuple[Place, Any]]:
    entries = []
    for entry in _list(message[which]):
        if not isinstance(entry, list) or len(entry) != 3:
            _wrong("an entry has not three parts")
        entries.append(((_number(entry[0], MOST * 4), _number(entry[1], MOST * 1024)), entry[2]))
    return entries


def _options(value: object) -> dict[str, Value]:
    if not isinstance(value, dict):
        _wrong("options are no table")
    return {name: _option(name, each) for name, each in value.items()}


def _option(name: str, value: object) -> Value:
    option = BY_NAME.get(name)
    if option is None:
        _wrong("an option is not known")
    if isinstance(value, int) and not isinstance(value, bool) and option.kind != BYTES:
        if not -(1 << 31) <= value < 1 << 31:
            _wrong("an option's number is out of bounds")
        return value
    if option.kind == NUMBER:
        _wrong("an option is no number")
    return _bytes(value, option.size if option.kind == BYTES else 15)


def _datagrams(value: object) -> list[Datagram]:
    return [_datagram(entry) for entry in _list(value)]


def _datagram(entry: object) -> Datagram:
    if not isinstance(entry, list) or len(entry) != 7:
        _wrong("a datagram has not seven parts")
    sender, sender_port, receiver, receiver_port, hops, service, data = entry
    ends = (
        (_address(sender), _number(sender_port, 65535)),
        (_address(receiver), _number(receiver_port, 65535)),
    )
    if (":" in ends[0][0]) is not (":" in ends[1][0]):
        _wrong("a datagram's addresses are of two kinds")
    return Datagram(*ends, _number(hops, 255), _number(service, 255), _bytes(data, MOST_BYTES))


def _address(value: object) -> str:
    if not isinstance(value, str) or "%" in value:
        _wrong("an address is none")
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        _wrong("an address is none")


def _name(value: object) -> str:
    if not isinstance(value, str) or "\0" in value or not value.startswith("/"):
        _wrong("a name is no absolute path")
    if len(value) > 4096 or ".." in PurePosixPath(value).parts or value.endswith("/"):
        _wrong("a name is none of a file")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST:
        _wrong("it has no list where one belongs")
    return value


def _number(value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        _wrong("a number is out of bounds")
    return value


def _bytes(value: object, most: int) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * most:
        _wrong("bytes are none, or too many")
    try:
        return bytes.fromhex(value)
    except ValueError:
        _wrong("bytes are no hexadecimal digits")


def _wrong(why: str) -> NoReturn:
    raise Misunderstood(f"the other side sent a list of sockets that can't be understood: {why}")
