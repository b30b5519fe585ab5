"""Results of many tries in a JSON file, which is complete at any moment: a run that is killed goes on from it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from sealift.errors import UnusableInput
from sealift.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Result = TypeVar("Result")

LIMIT = 64 << 20


def text(results: Iterable[Any]) -> str:
    """Results, which are dataclasses, as JSON: a list of objects by their fields."""
    return json.dumps([asdict(each) for each in results], indent=1) + "\n"


def store(results: Iterable[Any], path: Path) -> None:
    """Write such a file, completely or not at all, even if this process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.{os.getpid()}")
    making.write_text(text(results))
    making.rename(path)


def stored(path: Path, made: Callable[[dict[str, Any]], Result], what: str, command: str) -> list[Result]:
    """What is in such a file; nothing if it is not there. `made` makes one result of its object.

    UnusableInput for another kind of file than one of `what`, which `command` writes.
    """
    if not path.exists():
        return []
    try:
        return [made(fields) for fields in json.loads(read_bounded(path, LIMIT))]
    except (ValueError, TypeError, KeyError, RecursionError) as strange:
        raise UnusableInput(
            f"{path} is not a file of {what}",
            remedy=f"Name a file that `{command} --results` has written, or a new one",
        ) from strange
