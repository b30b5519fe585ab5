"""Options that several commands of the command line have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from sealift.model import Strategy

InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", help="The inventory. Default: ./sealift.toml, or the running lab's."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, nothing else, on standard output.")]


def evidence_kind(text: str | None) -> Literal["snp", "sev", "none"] | None:
    """What `--evidence` says. UnusableInput for a word that it does not have."""
    if text is None:
        return None
    known: tuple[Literal["snp", "sev", "none"], ...] = ("snp", "sev", "none")
    for each in known:
        if text == each:
            return each
    raise UnusableInput(f"--evidence has no {text!r}", remedy="Take snp, sev or none")


def byte_count(text: str | None) -> int | None:
    """A number of bytes, from words as `100M`. UnusableInput for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)(?:B(?:/s)?)?", text)
    amount = int(float(found[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[found[2]]) if found else 0
    if not amount:
        raise UnusableInput(f"{text!r} is no amount of bytes", remedy="Write it as 500k, 100M or 1G")
    return amount


def strategy_named(text: str) -> Strategy:
    """What `--strategy` says. UnusableInput for a word that it does not have."""
    from sealift.model import Strategy

    try:
        return Strategy(text)
    except ValueError:
        known = ", ".join(Strategy)
        raise UnusableInput(f"--strategy has no {text!r}", remedy=f"Take one of: {known}") from None
