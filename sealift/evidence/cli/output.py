"""Verdicts and tables for people and for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from sealift.plain_text import json_text, one_line, printable

if TYPE_CHECKING:
    from sealift.evidence.verify.verdict import Verdict

_UNFOLDED = 4096


def escape(text: str) -> str:
    """Foreign text (from certificates, reports, file names) without control sequences and without rich's markup."""
    return escape_markup(one_line(text))


def print_verdict(verdict: Verdict, *, as_json: bool) -> None:
    """Print the answer, then every reason and comparison, then what was not checked."""
    if as_json:
        _print_json(verdict.to_json())
        return
    console = _console()
    answer = "accepted" if verdict.accepted else "rejected"
    colour = "green" if verdict.accepted else "red"
    genuine = "genuine" if verdict.genuine else "not genuine"
    console.print(
        f"[bold {colour}]{answer}[/]: {genuine} {verdict.kind} of {verdict.generation or 'unknown'}"
    )
    for label in verdict.labels:
        console.print(f"[bold yellow]{escape(label)}[/]")
    if verdict.extra_root:
        console.print("the root is not AMD's: it is trusted because the policy names it")
    for reason in verdict.reasons:
        console.print(f"  [red]✗[/] {escape(reason.check)}: {escape(reason.detail)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "check", "demanded", "found"):
        table.add_column(heading, overflow="fold")
    for check in verdict.checked:
        mark = "[green]✓[/]" if check.holds else "[red]✗[/]"
        table.add_row(mark, escape(check.check), escape(check.demanded), escape(check.found))
    console.print(table)
    if verdict.unchecked:
        console.print(
            "[bold]not checked[/], because the policy does not demand it or the evidence cannot show it: "
            f"{', '.join(verdict.unchecked)}"
        )


def print_rows(tables: list[tuple[str, list[tuple[str, str]]]], *, as_json: bool) -> None:
    """Print a table for each item."""
    if as_json:
        things = [{"format": title, "fields": dict(rows)} for title, rows in tables]
        _print_json({"contents": things})
        return
    console = _console()
    for title, rows in tables:
        table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(escape(name), escape(value))
        console.print(table)


def print_object(content: dict[str, Any], *, plain: str, as_json: bool) -> None:
    """Print a result: as a short text, or as the JSON object."""
    if as_json:
        _print_json(content)
    else:
        sys.stdout.write(printable(plain if plain.endswith("\n") else f"{plain}\n"))


def _console() -> Console:
    # In a file or a pipe, lines are not wrapped: a digest on two lines cannot be searched.
    width = None if sys.stdout.isatty() else _UNFOLDED
    return Console(file=sys.stdout, highlight=False, width=width)


def _print_json(content: dict[str, Any]) -> None:
    sys.stdout.write(json_text(content) + "\n")
