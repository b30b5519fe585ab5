"""`sealift demo`: a migration in a lab, with a client that watches."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.options import JsonOption  # noqa: TC001 - typer reads the annotations
from cli.output import print_report, say
from flows import scheduler


def demo(
    kind: Annotated[str, typer.Option("--lab", help="vm or netns.")] = "vm",
    memory_mb: Annotated[int, typer.Option(min=1, help="How much Redis holds.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Migrate a Redis under a client's hands, in a lab. Then check it, and take the lab down."""
    scheduler.set_up()
    from benchmarks.demo import run_demo
    from flows.ephemeral import demand_password
    from sealift.lab.plan import kind_of
    from sealift.migration import progress
    from sealift.migration.display import Display

    demand_password()
    with progress.listening(Display(sys.stderr)):
        result = run_demo(kind_of(kind), memory_mb, say=say)
    print_report(result.report, as_json=as_json, client=result.client)
    if not result.client.intact:
        raise SystemExit(1)
