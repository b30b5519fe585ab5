"""Dataclasses to JSON and back, strictly: bytes in base64, no unknown keys, no missing keys, no converted types.

It is used where the peer is not trusted or runs another Python: for the emulator's sockets and the provider's orders.
Standard library only, since a provider's host has little more.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import types
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from sealift.errors import UnusableInput
from sealift.words import not_known

T = TypeVar("T")

LINE_LIMIT = 1 << 20
"""Bytes of one message. The largest message, a certificate table in base64, has 90 KiB."""


def to_json(value: Any) -> Any:
    """Dataclasses, bytes, enums, paths, sequences and plain values, as values that `json` can write."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    match value:
        case bytes():
            value = base64.b64encode(value).decode()
        case Enum():
            value = value.value
        case Path():
            value = str(value)
        case tuple() | list():
            value = [to_json(each) for each in value]
        case dict():
            value = {key: to_json(each) for key, each in value.items()}
    return value


def to_line(value: Any) -> bytes:
    """One message: JSON and a newline."""
    return json.dumps(to_json(value), separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> dict[str, Any]:
    """The JSON object in a line."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnusableInput("a message that is not JSON", remedy="Send one JSON object a line") from error
    if not isinstance(message, dict):
        raise UnusableInput("a message that is not a JSON object", remedy="Send one JSON object a line")
    return message


def from_json(kind: type[T], value: Any, what: str = "the message") -> T:
    """The value as `kind`; UnusableInput names the first field that is wrong."""
    read: T = _read(kind, value, what)
    return read


def _read(kind: Any, value: Any, what: str) -> Any:
    if get_origin(kind) in {Union, types.UnionType}:
        return _read_union(kind, value, what)
    if get_origin(kind) is tuple:
        return _read_tuple(get_args(kind), value, what)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, what)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _read_enum(kind, value, what)
    if kind is bytes:
        return _read_bytes(value, what)
    return _read_plain(kind, value, what)


def _read_plain(kind: Any, value: Any, what: str) -> Any:
    if kind is Any:
        return value
    if kind is Path and isinstance(value, str) and "\0" not in value:
        return Path(value)
    # In Python a bool is an int, in a message it is not.
    if (
        kind in {bool, int, str, dict}
        and isinstance(value, kind)
        and isinstance(value, bool) == (kind is bool)
    ):
        return value
    raise _wrong(what, getattr(kind, "__name__", str(kind)))


def _read_enum(kind: type[Enum], value: Any, what: str) -> Enum:
    try:
        return kind(value)
    except ValueError as error:
        known = [str(each.value) for each in kind]
        near = f" ({not_known(value, known)})" if isinstance(value, str) else ""
        raise _wrong(what, f"one of {', '.join(known)}{near}") from error


def _read_dataclass(kind: Any, value: Any, what: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(what, "an object")
    hints = get_type_hints(kind)
    fields = {each.name: each for each in dataclasses.fields(kind)}
    if unknown := value.keys() - fields.keys():
        raise _wrong(what, f"without unknown keys ({not_known(min(map(str, unknown)), fields)})")
    given = {name: _read(hints[name], each, f"{what}'s {name}") for name, each in value.items()}
    for name, each in fields.items():
        needed = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        if needed and name not in given:
            raise _wrong(what, f"with {name!r}")
    return kind(**given)


def _read_union(kind: Any, value: Any, what: str) -> Any:
    choices = [each for each in get_args(kind) if each is not types.NoneType]
    if value is None and len(choices) < len(get_args(kind)):
        return None
    fault: UnusableInput | None = None
    for choice in choices:
        try:
            return _read(choice, value, what)
        except UnusableInput as error:
            fault = fault or error
    raise fault or _wrong(what, "something else")


def _read_tuple(kinds: tuple[Any, ...], value: Any, what: str) -> Any:
    if not isinstance(value, list):
        raise _wrong(what, "a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_read(kinds[0], each, what) for each in value)
    if len(value) != len(kinds):
        raise _wrong(what, f"a list of {len(kinds)}")
    return tuple(_read(kind, each, what) for kind, each in zip(kinds, value, strict=True))


def _read_bytes(value: Any, what: str) -> bytes:
    if not isinstance(value, str):
        raise _wrong(what, "base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(what, "base64") from error


def _wrong(what: str, wanted: str) -> UnusableInput:
    return UnusableInput(f"{what} must be {wanted}", remedy="See the order's fields in its documentation")
