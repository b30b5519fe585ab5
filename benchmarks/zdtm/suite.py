"""The built suite: which programs it has, and what their descriptions say."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealift.errors import UnusableInput

VARIABLE = "ZDTM"
FOLDERS = ("static", "transition")
ARCHITECTURE = "x86_64"
BUILD = (
    "Unpack CRIU's sources (Debian: `apt-get source criu`), run `make -k -C test/zdtm`, "
    f"and name that folder: {VARIABLE}=…/test/zdtm"
)


@dataclass(frozen=True)
class Program:
    """One program of the suite."""

    name: str
    """With its folder, as in `static/pipe00`."""

    description: dict[str, Any] = field(default_factory=dict)
    is_computed: bool = False
    """Whether the suite computes its description at run time: then it depends on what a run has been given."""

    @property
    def flags(self) -> set[str]:
        """Words of its description: `noauto`, `crfail`, `excl` and so on."""
        return set(str(self.description.get("flags", "")).split())

    @property
    def alone(self) -> bool:
        """Whether it changes mounts, network or the like of its container, and so can't share one.

        The suite runs it in namespaces of its own only.
        """
        flavors = str(self.description.get("flavor", "h")).split()
        return "h" not in flavors or "excl" in self.flags

    @property
    def left_out(self) -> str:
        """Why it is not tried, or nothing."""
        if "noauto" in self.flags:
            return "the suite does not run it by itself (noauto)"
        if self.is_computed:
            return "the suite runs it only where the run was prepared for it (its description is computed)"
        architectures = str(self.description.get("arch", "")).split()
        if architectures and ARCHITECTURE not in architectures:
            return f"for {', '.join(architectures)} only"
        return ""


def description(text: str) -> dict[str, Any]:
    """The content of a `.desc` file: a literal of Python with words as keys. ValueError for another text."""
    try:
        found = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as strange:
        raise ValueError(f"no description: {text[:60]!r}") from strange
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"no description: {text[:60]!r}")
    return found


def folder() -> Path:
    """Where the built suite is. UnusableInput if `$ZDTM` names none."""
    given = os.environ.get(VARIABLE)
    if not given:
        raise UnusableInput(f"${VARIABLE} names no built suite of CRIU's", remedy=BUILD)
    path = Path(given)
    if not (path / "static" / "Makefile").is_file() or not (path / "lib" / "libzdtmtst.a").is_file():
        raise UnusableInput(f"{path} (${VARIABLE}) is no built suite of CRIU's", remedy=BUILD)
    return path


def programs(suite: Path) -> list[Program]:
    """All programs that were built, in the order of their names."""
    found = []
    for kind in FOLDERS:
        for source in sorted((suite / kind).glob("*.c")):
            built = source.with_suffix("")
            if built.is_file() and os.access(built, os.X_OK):
                name, described = f"{kind}/{built.name}", source.with_suffix(".desc")
                try:
                    said = description(described.read_text()) if described.is_file() else {}
                    found.append(Program(name, said))
                except ValueError:
                    found.append(Program(name, is_computed=True))
    return found


def chosen(suite: Path, names: list[str]) -> list[Program]:
    """The programs of these names (with or without folder), or all that are not left out. UnusableInput for others."""
    every = programs(suite)
    if not names:
        return [program for program in every if not program.left_out]
    found = {program.name: program for program in every}
    found |= {program.name.partition("/")[2]: program for program in every}
    if unknown := [name for name in names if name not in found]:
        raise UnusableInput(
            f"the suite has no program {unknown[0]!r}", remedy=f"{suite}/static has its programs"
        )
    return [found[name] for name in names]
