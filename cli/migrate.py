"""`sealift migrate`, `check` and `recover`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import InventoryOption, JsonOption, WithOptions, options_of, retries_of
from cli.output import print_json, print_report
from flows import scheduler
from sealift.errors import UnusableInput
from sealift.plain_text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.migration.request import Options
    from sealift.model import Report

ContainerArgument = Annotated[str, typer.Argument(help="Name or id of a running container.")]
SourceOption = Annotated[str, typer.Option("--from", help="The host that it runs on.")]
DestinationOption = Annotated[str, typer.Option("--to", help="The host that it is to run on.")]


class MigrateCommand(WithOptions):
    """It takes all options of a migration."""

    names = (
        "strategy",
        "max_rounds",
        "max_downtime",
        "bandwidth",
        "throttle",
        "compress",
        "streams",
        "bind",
        "binds_as_they_are",
        "retries",
        "evidence",
    )


class CheckCommand(WithOptions):
    """It takes those that a check depends on."""

    names = ("bandwidth", "bind", "binds_as_they_are", "evidence")


def migrate(
    ctx: typer.Context,
    source: SourceOption,
    destination: DestinationOption,
    containers: Annotated[
        list[str] | None,
        typer.Argument(
            help="Name or id of a running container. Several freeze and move together, or not at all."
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="All running containers of a Docker Compose project, together.")
    ] = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Migrate a running container, or several together, live."""
    from sealift import inventory as inventories

    if not containers and project is None:
        raise UnusableInput(
            "no container is named", remedy="Name one, or several, or a Compose project by --project"
        )
    named = list(containers or [])
    known = inventories.load(inventory)
    for host in (source, destination):
        known.host(host)  # a slip of the pen is answered before Prefect is loaded
    from sealift.migration import progress
    from sealift.migration.display import Display

    together = project is not None or len(named) > 1
    display = Display(sys.stderr, named=together)
    display.begin(f"{source} to {destination}: {', '.join([*named, *([project] if project else [])])}")
    try:
        with progress.listening(display):
            if scheduler.is_configured():
                reports = _by_flow(
                    named, source, destination, project, options_of(ctx), inventory, retries_of(ctx)
                )
            else:
                from sealift.migration import group
                from sealift.migration.concurrently import Concurrently
                from sealift.migration.request import Request

                if project:
                    named += group.of_project(known, source, project)
                requests = [Request(name, source, destination, options_of(ctx)) for name in named]
                reports = group.migrate(known, requests, Concurrently(), retries_of(ctx))
    finally:
        display.end()
    if together and as_json:
        print_json([report.model_dump(mode="json") for report in reports])
        return
    for report in reports:
        print_report(report, as_json=as_json)


def _by_flow(
    named: list[str],
    source: str,
    destination: str,
    project: str | None,
    options: Options,
    inventory: Path | None,
    retries: int,
) -> list[Report]:
    """The same as flow runs of the Prefect API that is configured."""
    scheduler.set_up()
    from flows.ending import run

    if project is None and len(named) == 1:
        from flows.migrate import migrate as flow

        return [run(flow, named[0], source, destination, options, inventory, retries)]
    from flows.migrate_group import migrate_group

    return run(migrate_group, source, destination, named, project, options, inventory, retries)


def check(
    ctx: typer.Context,
    container: ContainerArgument,
    source: SourceOption,
    destination: DestinationOption,
    inventory: InventoryOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List what nothing stands in the way of, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether a container can be migrated, and if not, why. Changes nothing. Exit status 1 if it can't."""
    from sealift import inventory as inventories
    from sealift.migration.check import check as examine
    from sealift.migration.checks.verdict import verdict_lines
    from sealift.migration.display import estimate_lines
    from sealift.migration.request import Request

    request = Request(container, source, destination, options_of(ctx))
    checked = examine(inventories.load(inventory), request)
    if as_json:
        print_json(checked.as_dict())
    else:
        lines = verdict_lines(checked.container, source, destination, checked.findings, everything=everything)
        sys.stdout.write(printable("\n".join([*lines, "", *estimate_lines(checked.estimate), ""])))
    if not checked.movable:
        raise SystemExit(1)


def recover(
    migration: Annotated[
        str | None, typer.Argument(help="One migration by its id. Default: all that nobody is at.")
    ] = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """End migrations that were left unfinished.

    By the gateway's record each has one outcome, and both hosts are told.

    Exit status 1 if a host could not be told; run it again then.
    """
    from dataclasses import asdict

    from sealift import inventory as inventories
    from sealift.migration import recovery

    ended = recovery.recover(inventories.load(inventory), migration)
    if as_json:
        print_json([{**asdict(one), "owner": one.owner} for one in ended])
    else:
        sys.stdout.write("".join(f"{one.sentence()}\n" for one in ended) or "nothing was left unfinished\n")
    if any(one.left for one in ended):
        raise SystemExit(1)
