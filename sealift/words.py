"""What people write into settings: TOML with bounds, and words of closed sets, where the nearest one is named.

Standard library only, since a provider's host has little more: models and their errors are the caller's.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel, ValidationError

_SHOWN = 40
_FAULTS_LIMIT = 10
_LISTED_LIMIT = 12
# The time that TOML takes to read grows with the square of how deep a key is dotted.
_DOTS_LIMIT = 32
_QUOTED = re.compile(r"'([^']*)'")


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, in whatever case; None where none is like it."""
    folded = {str(each).casefold(): str(each) for each in known}
    found = difflib.get_close_matches(word[:_SHOWN].casefold(), folded, n=1, cutoff=0.5)
    return folded[found[0]] if found else None


def not_known(word: str, known: Iterable[str]) -> str:
    """Part of a sentence: that a word is none of a set, and which of the set is the nearest."""
    listed = sorted(map(str, known))
    near = closest(word, listed)
    if near is not None:
        return f"{shown(word)} is not known here, the nearest word is {near!r}"
    if len(listed) > _LISTED_LIMIT:
        return f"{shown(word)} is not known here"
    return f"{shown(word)} is not known here, known are {', '.join(listed)}"


def shown(text: object) -> str:
    """Somebody's text, cut, in quotes, and without anything that a terminal would obey."""
    return ascii(str(text)[:_SHOWN])


def read_toml(content: bytes) -> dict[str, Any]:
    """The tables of a TOML text. ValueError, in a few words, for all that is none, however it is made."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if any(line.count(".") > _DOTS_LIMIT for line in text.splitlines()):
        raise ValueError(f"it has a line of more than {_DOTS_LIMIT} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def faults(model: type[BaseModel], error: ValidationError) -> list[tuple[str, str]]:
    """Every fault that a model has found, as (where, what). An unknown key or word comes with the nearest one."""
    found: dict[str, str] = {}
    for each in error.errors(include_url=False)[:_FAULTS_LIMIT]:
        where, inside = _walk(model, each["loc"])
        kind, given = each["type"], each["input"]
        what = each["msg"].removeprefix("Value error, ")
        if kind == "extra_forbidden":
            key = str(each["loc"][-1])
            where = ".".join((*where.split("."), _plain(key)) if where else (_plain(key),))
            what = not_known(key, (name for one in inside for name in one.model_fields))
        elif kind in {"enum", "literal_error"} and isinstance(given, str):
            what = not_known(given, _QUOTED.findall(str(each["ctx"]["expected"])))
        elif where in found:
            # Of a choice between a number and a word, what was said of the one is enough.
            continue
        found[where] = what
    return list(found.items())


def _walk(model: type[BaseModel], steps: tuple[int | str, ...]) -> tuple[str, list[type[BaseModel]]]:
    """The path as far as it names settings, and the models that it ends in."""
    path: list[str] = []
    here: list[Any] = [model]
    for step in steps:
        inside = [each for annotation in here for each in _inside(annotation, step)]
        if not inside:
            break
        path.append(_plain(str(step)))
        here = inside
    return ".".join(path), [each for annotation in here for each in _models(annotation)]


def _inside(annotation: Any, step: int | str) -> list[Any]:
    """What the values below this step are."""
    found: list[Any] = []
    for each in _alternatives(annotation):
        origin, arguments = get_origin(each), get_args(each)
        if origin is dict and step != "[key]":
            found.append(arguments[1])
        elif origin in {list, tuple} and isinstance(step, int):
            found.append(arguments[0])
    named = (each.model_fields.get(str(step)) for each in _models(annotation))
    return found + [field.annotation for field in named if field is not None]


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [each for each in _alternatives(annotation) if hasattr(each, "model_fields")]


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return [each for one in get_args(annotation) for each in _alternatives(one)]
    return [annotation]


def _plain(text: str) -> str:
    return text if text.isascii() and text.isprintable() and len(text) <= _SHOWN else shown(text)
