"""What agents say to each other, checked before anything acts on it: one function for each message that is received.

Each takes the message as it came and gives what is in it, or raises `Misunderstood`, an AgentError of one sentence.
Messages of this project's own agents pass; what else comes is from a broken or a hostile one.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath
from typing import Any, NamedTuple, NoReturn

LINE_LIMIT = 1 << 20
"""A message has at most so many bytes."""

WAITING = "waiting"
"""The gateway's word for a group that is not complete."""

OUTCOMES = frozenset({"committed", "rolled back"})
PHASES = frozenset({"received", "restored", "committed"})
STEPS = frozenset({"final dump", "transfer", "restore", "network switch"})

MOST_IMAGES, MOST_LINKS, MOST_FACTS = 1 << 16, 1 << 16, 64
MOST_BYTES = 1 << 50
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,254}")
"""Of an image: CRIU's names, runc's, and our own. No path, and nothing that begins with a dot."""

PRINTED_BYTES = 1 << 24
"""Of a container's log in one piece. Docker cuts a line at 16 KiB, which JSON may make six times as long."""

FACT = re.compile(r"[a-z][a-z0-9_]{0,40}")
TAKEN = frozenset({"name", "event", "at_ns"})
SENTENCE = 4000


def printable(text: str) -> str:
    """A text for a person: what is no UTF-8 in it, or what a terminal would act on, is escaped."""
    return "".join(each if each.isprintable() or each in "\n\t" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else ascii(character)[1:-1]


class AgentError(Exception):
    """One sentence for a person; `step` names the step of the protocol that failed."""

    def __init__(self, message: str, step: str | None = None) -> None:
        super().__init__(printable(message))
        self.step = step


class Misunderstood(AgentError):
    """The other side has said something that is no message of this protocol."""


class Failed(NamedTuple):
    """The destination's word that it has given up: why, and in which step if it said so."""

    why: str
    step: str | None


class Reached(NamedTuple):
    """The destination's word that it has come to a phase, with numbers for the record."""

    phase: str
    facts: dict[str, int]


class Sent(NamedTuple):
    """What the source sends behind its last dump: files of the images with their sizes in bytes, in order.

    `links` are names that the restore looks for: tree, name, other name of the same file. `files` says whether the
    container's files have changed since they were flushed.
    """

    images: list[tuple[str, int]]
    links: list[tuple[str, str, str]]
    files: bool


def parse(line: bytes | str) -> dict[str, Any]:
    """One JSON object. Misunderstood for anything else, however deep, long or wrong it is."""
    try:
        message = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as unreadable:
        raise Misunderstood("the other side sent what is no message: it is not readable JSON") from unreadable
    if not isinstance(message, dict):
        raise Misunderstood(f"the other side sent a {type(message).__name__} where a message was expected")
    return message


def outcome(message: dict[str, Any], *, may_wait: bool = False) -> str:
    """The gateway's answer to `switch` and `call_off`: how it is decided, or for a group also WAITING."""
    return _word(message, "outcome", OUTCOMES | {WAITING} if may_wait else OUTCOMES)


def held(message: dict[str, Any]) -> int:
    """The gateway's answer to `release`: how many packets it had held."""
    return _count(message.get("held"), "held")


def refusal(message: dict[str, Any]) -> str | None:
    """The reason if the message is an error."""
    return _sentence(message, "error") if "error" in message else None


def taken(message: dict[str, Any]) -> Failed | None:
    """The destination's answer to a piece of the log: None if it has printed it."""
    if "failed" in message:
        return _failed(message)
    if message.get("printed") is not True:
        _wrong("printed", "it is not true")
    return None


def progress(message: dict[str, Any]) -> Reached | Failed:
    """What the destination says after it has the images."""
    if "failed" in message:
        return _failed(message)
    return Reached(_word(message, "phase", PHASES), _facts(message.get("facts", {})))


def printed(message: dict[str, Any]) -> int | None:
    """How many bytes of the container's log follow the message; None where it is another one."""
    if "printed" not in message:
        return None
    size = _count(message["printed"], "printed")
    if size > PRINTED_BYTES:
        _wrong("printed", f"it is more than {PRINTED_BYTES} bytes")
    return size


def is_alive(message: dict[str, Any]) -> bool:
    """Whether the other side only says that it is still at work."""
    return message.get("alive") is True


def sent(message: dict[str, Any], trees: frozenset[str]) -> Sent:
    """The source's last message, with the names of the trees that travel."""
    images = [_image(entry) for entry in _list(message.get("images"), MOST_IMAGES, "images")]
    if len({name for name, _ in images}) != len(images):
        _wrong("images", "a name comes twice")
    links = [_link(entry, trees) for entry in _list(message.get("links"), MOST_LINKS, "links")]
    files = message.get("files")
    if not isinstance(files, bool):
        _wrong("files", "it is neither true nor false")
    return Sent(images, links, files)


def loaded(message: dict[str, Any]) -> None:
    """The destination's answer to an image."""
    if message.get("loaded") is not True:
        _wrong("loaded", "it is not true")


def rate(message: dict[str, Any]) -> float:
    """What a link has carried, in bytes a second."""
    value = message.get("bytes_s")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _wrong("bytes_s", "it is no number")
    if not 0 <= value <= MOST_BYTES or not math.isfinite(value):
        _wrong("bytes_s", "it is out of bounds")
    return float(value)


class Order(NamedTuple):
    """What the controller asks of an agent: by this name, to be answered under this number, with these arguments."""

    name: str
    number: int
    arguments: dict[str, Any]


def order(message: dict[str, Any]) -> Order:
    """An order of the controller's."""
    name = message.pop("order", None)
    if not isinstance(name, str):
        _wrong("order", "it is no word")
    return Order(name, _count(message.pop("number", None), "number"), message)


def _failed(message: dict[str, Any]) -> Failed:
    step = message.get("step")
    return Failed(_sentence(message, "failed"), step if isinstance(step, str) and step in STEPS else None)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _wrong(name: str, why: str) -> NoReturn:
    raise Misunderstood(f"the other side sent a message that can't be understood: {name!r}: {why}")


def _word(message: dict[str, Any], name: str, known: frozenset[str]) -> str:
    value = message.get(name)
    if not isinstance(value, str) or value not in known:
        _wrong(name, f"it is none of {', '.join(sorted(known))}")
    return value


def _sentence(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        _wrong(name, "it is no text")
    return value[:SENTENCE]


def _count(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_BYTES:
        _wrong(name, "it is no number within bounds")
    return value


def _list(value: object, most: int, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        _wrong(name, f"it is no list of at most {most}")
    return value


def _facts(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or len(value) > MOST_FACTS:
        _wrong("facts", f"it is no table of at most {MOST_FACTS}")
    if not all(FACT.fullmatch(name) and name not in TAKEN for name in value):
        _wrong("facts", "a name in it is none of a number")
    return {name: _count(number, name) for name, number in value.items()}


def _image(entry: object) -> tuple[str, int]:
    if not isinstance(entry, dict):
        _wrong("images", "an entry is no table")
    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        _wrong("images", "a name is no plain file name")
    return name, _count(entry.get("size"), "size")


def _link(entry: object, trees: frozenset[str]) -> tuple[str, str, str]:
    if not isinstance(entry, list) or len(entry) != 3 or not all(isinstance(each, str) for each in entry):
        _wrong("links", "an entry is none of three texts")
    tree, name, other = entry
    if tree not in trees or not _is_beneath(name) or not _is_beneath(other):
        _wrong("links", "an entry is no tree with two names beneath it")
    return tree, name, other


def _is_beneath(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts
