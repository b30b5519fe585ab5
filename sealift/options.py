"""Options that several commands of the command line have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", help="The inventory. Default: ./sealift.toml, or the running lab's."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, nothing else, on standard output.")]
