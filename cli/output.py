"""What commands print: reports, tables, JSON; and what they say on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sealift.plain_text import json_text, one_line, printable

if TYPE_CHECKING:
    from benchmarks.workloads.client import Findings
    from sealift.model import Report


def say(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{printable(text)}\n")


def print_report(report: Report, *, as_json: bool, client: Findings | None = None) -> None:
    """A migration's report, with what a client saw of it."""
    from sealift.migration import display

    if as_json:
        made = report.model_dump(mode="json")
        if client is not None:
            made["client"] = client.as_dict()
        print_json(made)
    else:
        display.print_report(report, client)


def print_json(value: object) -> None:
    """A value as JSON on standard output, and nothing else."""
    sys.stdout.write(json_text(value) + "\n")


def print_table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table on standard output, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))  # a string would be markup
    Console().print(table)
