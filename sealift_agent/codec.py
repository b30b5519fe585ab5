"""Bytes to protocol and back: strict, bounded and total.

A value is what its type says, or `Misunderstood` is raised, in one sentence: no field too many, none too few, no number
for a word, no true for a number. Types are resolved while agents run, on Pythons as old as 3.9: fields say Optional[X].
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from .messages import Misunderstood, printable
from .protocol import EVENTS, Event, Happened

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Misunderstood", "decode", "decode_event", "encode", "encode_event"]
"""The controller has `Misunderstood` from here: of the agents' own messages it knows nothing."""

MOST_ENTRIES = 1 << 20
MOST = 1 << 63
"""No number is larger, in either direction."""


def encode(value: Any) -> Any:
    """A value of the protocol as what JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: encode(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [encode(each) for each in value]
    if isinstance(value, dict):
        return {name: encode(each) for name, each in value.items()}
    return value


def decode(kind: Any, value: Any, name: str = "answer") -> Any:
    """The value as that type. Misunderstood if it is none; `name` says of what in that sentence."""
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, name)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Union:
        return None if value is None else decode(arguments[0], value, name)
    if origin is list:
        _is(value, isinstance(value, list) and len(value) <= MOST_ENTRIES, name, "a list")
        return [decode(arguments[0], each, name) for each in value]
    if origin is dict:
        _is(value, isinstance(value, dict) and len(value) <= MOST_ENTRIES, name, "a table")
        return {key: decode(arguments[1], each, name) for key, each in value.items()}
    return value if kind is Any else _plain(kind, value, name)


def encode_event(event: Event, at_ns: int) -> dict[str, Any]:
    """An event as a message."""
    return {"event": event.NAME, "at_ns": at_ns, **encode(event)}


def decode_event(message: dict[str, Any]) -> Happened:
    """The event that a message tells of. Misunderstood if it is none of the protocol's."""
    fields = dict(message)
    name, at_ns = fields.pop("event", None), fields.pop("at_ns", None)
    kind = EVENTS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Misunderstood(f"there is no event {printable(repr(name)[:40])}")
    what = f"the event {name!r}"
    return Happened(decode(int, at_ns, f"{what}'s 'at_ns'"), decode(kind, fields, what))


def _plain(kind: Any, value: Any, name: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and -MOST <= value < MOST
    if kind in PLAIN:
        what, is_one = PLAIN[kind]
        return _is(value, is_one(value), name, what)
    if kind is float:
        return float(_is(value, is_number, name, "a number"))
    if kind is int:
        return _is(value, is_number and isinstance(value, int), name, "a whole number")
    words = [each.value for each in kind]
    return kind(_is(value, isinstance(value, str) and value in words, name, f"one of {', '.join(words)}"))


PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    None: ("nothing", lambda value: value is None),
    str: ("a text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
}


def _record(kind: Any, value: Any, name: str) -> Any:
    _is(value, isinstance(value, dict), name, "a table")
    fields = {each.name: each for each in dataclasses.fields(kind)}
    for unknown in value.keys() - fields.keys():
        raise Misunderstood(f"{name} has a field {printable(repr(unknown[:40]))}, which is not known here")
    for each in fields.values():
        has_default = (each.default, each.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        if each.name not in value and not has_default:
            raise Misunderstood(f"{name} has no field {each.name!r}")
    types = _types(kind)
    return kind(**{each: decode(types[each], value[each], f"{name}'s {each!r}") for each in value})


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is(value: Any, right: bool, name: str, what: str) -> Any:
    if not right:
        raise Misunderstood(f"{name} is not {what}")
    return value
