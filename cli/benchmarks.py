"""`sealift bench`: measure, show, compare."""

from __future__ import annotations

import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import JsonOption  # noqa: TC001 - typer reads the annotations
from cli.output import print_json, say
from flows import scheduler
from sealift.errors import UnusableInput
from sealift.plain_text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from benchmarks.faults.cell import Verdict

app = typer.Typer(no_args_is_help=True, help="What a migration costs, and what it costs elsewhere.")

ResultsOption = Annotated[
    Path | None,
    typer.Option("--results", help="Folder of the results; a sweep goes on with what is not there."),
]
LabOption = Annotated[str, typer.Option("--lab", help="netns or vm. Taken if it is up, else brought up.")]
Paths = Annotated[
    list[Path] | None, typer.Argument(help="Result files or folders of them. Default: ./results.")
]


RowsOption = Annotated[
    Path | None,
    typer.Option("--results", help="File of rows. Those tried with this code are not tried again."),
]
PageOption = Annotated[
    Path | None, typer.Option("--page", help="Write the table of all rows as this Markdown page.")
]


@app.command()
def run(
    plan: Annotated[Path, typer.Argument(help="The TOML file of axes.")],
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every point of a sweep. Started again, it goes on where it was interrupted."""
    from benchmarks import sweep as sweeps

    chosen = sweeps.read_plan(plan)
    _show(_sweep(plan, results or Path("results") / chosen.name), as_json=as_json)


@app.command()
def quick(kind: LabOption = "netns", results: ResultsOption = None, as_json: JsonOption = False) -> None:
    """Run everything once, with all peers. This takes five minutes in the netns lab."""
    _shipped("quick", kind, results, as_json=as_json)


@app.command()
def peers(kind: LabOption = "netns", results: ResultsOption = None, as_json: JsonOption = False) -> None:
    """Run Sealift, its peers and the floor on the same work."""
    _shipped("peers", kind, results, as_json=as_json)


@app.command()
def faults(
    kind: Annotated[
        str,
        typer.Option(
            "--lab", help="netns or vm, the latter for losses of power. Brought up for it, and taken down."
        ),
    ] = "netns",
    cell: Annotated[
        list[str] | None,
        typer.Option("--cell", help="FAULT@MOMENT, may be given again; * stands for anything. Default: all."),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="The few that the tests try.")] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results", help="File of verdicts. Cells that it says held with this code are not tried again."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=16, help="Labs at once. More than one: netns only.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Break everything that can break at every moment of a migration. Exit status 1 if anything did not hold."""
    from benchmarks import kept
    from benchmarks.faults import faults as catalogue
    from benchmarks.faults import labs, matrix
    from benchmarks.faults.orchestrator import Orchestrator
    from benchmarks.measure.origin import code
    from sealift.lab import lab
    from sealift.lab.plan import kind_of

    lab_kind = kind_of(kind)
    if jobs > 1 and lab_kind != "netns":
        raise UnusableInput("VMs are tried one lab at a time", remedy="Leave --jobs out, or take --lab netns")
    chosen = catalogue.cells([*(catalogue.SAMPLE if sample else ()), *(cell or ())], lab_kind)
    known = matrix.stored(results) if results is not None else {}
    verdicts = {one.name: known[one.name] for one in chosen if one.name in known}
    left = [one for one in chosen if not matrix.holds(verdicts.get(one.name), code())]

    def keep(found: Iterable[Verdict]) -> None:
        for verdict in matrix.told(found, len(left), say):
            verdicts[verdict.cell] = verdict
            if results is not None:
                kept.store((known | verdicts).values(), results)

    alone = bool(left) and jobs == 1
    if alone:
        lab.up(lab_kind, say=say)  # outside of the block: one that is up already is not ours to take down
    try:
        if alone:
            with Orchestrator.ready() as orchestrator:
                keep(matrix.trials(left, orchestrator, lab_kind))
        else:
            keep(labs.trials(left, jobs, lab_kind))
    finally:
        if alone:
            lab.down()
        if as_json:
            sys.stdout.write(printable(kept.text(verdicts.values())))
        else:
            _print_matrix(*matrix.table(list(verdicts.values())))
    if not all(verdict.ok for verdict in verdicts.values()):
        raise SystemExit(1)


@app.command()
def compat(
    names: Annotated[list[str] | None, typer.Argument(help="Programs of the table. Default: all.")] = None,
    docker: Annotated[
        list[str] | None,
        typer.Option(
            "--docker", help="Docker's version: 26, 28 or 26:28. May be given again. Default: 26, 28."
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option("--strategy", help="Only this one of a program's strategies. May be given again."),
    ] = None,
    results: RowsOption = None,
    page: PageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move stock programs there, back and there, each with its client. Exit status 1 if a row is not as it must be."""
    from benchmarks import kept
    from benchmarks.compat import matrix
    from benchmarks.compat import page as pages

    programs = matrix.chosen(names or [])
    found = matrix.stored(results) if results is not None else {}
    tried = matrix.keep(
        programs, docker or matrix.DOCKERS, strategies=strategy or [], found=found, results=results, say=say
    )
    if page is not None:
        page.write_text(pages.markdown(list(found.values())))
    if as_json:
        sys.stdout.write(printable(kept.text(tried)))
    else:
        _print_matrix(*pages.table(tried))
    if any(matrix.wrong(row) for row in tried):
        raise SystemExit(1)


@app.command()
def zdtm(
    names: Annotated[list[str] | None, typer.Argument(help="Programs of the suite. Default: all.")] = None,
    docker: Annotated[str, typer.Option("--docker", help="Docker's version: 26, 28 or 26:28.")] = "26",
    privileges: Annotated[
        list[str] | None,
        typer.Option("--set", help="default or privileged. May be given again. Default: both."),
    ] = None,
    way: Annotated[
        list[str] | None,
        typer.Option(
            "--way", help="not moved, plain CRIU, auto or post-copy. May be given again. Default: all."
        ),
    ] = None,
    together: Annotated[
        int, typer.Option("--together", min=1, help="So many programs share a container at most.")
    ] = 50,
    results: RowsOption = None,
    page: PageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move CRIU's own test programs, by plain CRIU and by Sealift. $ZDTM names the built suite.

    Exit status 1 if plain CRIU brings something that Sealift does not, or `check` says yes to what fails.
    """
    from benchmarks import kept
    from benchmarks.zdtm import matrix, runners, suite
    from benchmarks.zdtm import page as pages
    from benchmarks.zdtm.row import Way, lines

    built = suite.folder()
    found = matrix.stored(results) if results is not None else {}
    tried = matrix.keep(
        built,
        suite.chosen(built, names or []),
        among(privileges, list(runners.PRIVILEGES), "set"),
        docker,
        found=found,
        results=results,
        say=say,
        ways=[Way(each) for each in among(way, [str(each) for each in Way], "way")],
        together=together,
    )
    if page is not None:
        page.write_text(pages.markdown(found.values()))
    if as_json:
        sys.stdout.write(printable(kept.text(tried)))
    else:
        _print_matrix(*pages.table(tried))
    if any(line.exception for line in lines(tried)):
        raise SystemExit(1)


def among(given: list[str] | None, known: list[str], what: str) -> list[str]:
    """What was given, or all that is known. UnusableInput for another word."""
    for each in given or []:
        if each not in known:
            raise UnusableInput(f"there is no {what} {each!r}", remedy=f"Take some of: {', '.join(known)}")
    return given or known


@app.command()
def report(
    paths: Paths = None,
    output: Annotated[Path, typer.Option("--output", help="The page to write.")] = Path("report.html"),
    readme: Annotated[
        Path | None,
        typer.Option(
            "--readme",
            help="Rewrite the figures of this Markdown page, and their pictures in `figures` beside it.",
        ),
    ] = None,
) -> None:
    """Write one page with all tables and pictures. It needs no other file."""
    from benchmarks import report as reports

    chosen = paths or [Path("results")]
    if readme is not None:
        reports.write_readme(chosen, readme)
        say(f"{readme} has the figures of {', '.join(map(str, chosen))}")
    else:
        reports.write_page(chosen, output)
        say(f"{output} is written")


@app.command()
def bounds(paths: Paths = None, as_json: JsonOption = False) -> None:
    """Hold rows against what the engine is held to. Exit status 1 if something is not kept.

    `bench peers` makes the rows for a netns lab, `benchmarks/sweeps/vm.toml` those for a vm lab.
    """
    from benchmarks import bounds as held
    from benchmarks import frames

    found = held.bounds(frames.load(*(paths or [])))
    if not found:
        raise UnusableInput("no bound can be told from these rows", remedy="`sealift bench peers` makes some")
    if as_json:
        print_json([bound.facts() for bound in found])
    else:
        _print_matrix(list(held.HEADS), [list(line) for line in held.table(found)], [])
    if not all(bound.holds for bound in found):
        raise SystemExit(1)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Result file or folder to start from.")],
    after: Annotated[Path, typer.Argument(help="Result file or folder to judge.")],
    as_json: JsonOption = False,
) -> None:
    """Hold two result sets against each other. Exit status 1 if one is slower beyond the noise."""
    from dataclasses import asdict

    from benchmarks import frames
    from benchmarks.compare import changes

    found = changes(frames.load(before), frames.load(after))
    if as_json:
        print_json([asdict(change) | {"worse": change.worse, "better": change.better} for change in found])
    else:
        for change in found:
            sys.stdout.write(f"{'SLOWER ' if change.worse else 'faster ' if change.better else ''}{change}\n")
    if any(change.worse for change in found):
        raise SystemExit(1)


def _shipped(name: str, kind: str, results: Path | None, *, as_json: bool) -> None:
    """A sweep that comes with Sealift, in the lab of that kind. Without a folder of its own it starts anew."""
    import tempfile
    from datetime import UTC, datetime

    from sealift.lab.plan import kind_of

    lab = kind_of(kind)
    with as_file(files("benchmarks.sweeps") / f"{name}.toml") as shipped:
        text = shipped.read_text()
    with tempfile.TemporaryDirectory(prefix="sealift-bench-") as folder:
        plan = Path(folder) / f"{name}.toml"
        plan.write_text(text.replace("[[axes]]\n", f'[[axes]]\nlab = ["{lab}"]\n'))
        chosen = results or Path("results") / f"{name}-{lab}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
        _show(_sweep(plan, chosen), as_json=as_json)


def _sweep(plan: Path, results: Path) -> pd.DataFrame:
    scheduler.set_up()
    from benchmarks import frames
    from benchmarks.flows.sweep import sweep
    from flows.ephemeral import demand_password

    demand_password()
    made: Path = sweep(plan, results)
    say(f"results: {made}")
    return frames.load(made)


def _show(rows: pd.DataFrame, *, as_json: bool) -> None:
    from benchmarks import summary

    if as_json:
        sys.stdout.write(
            rows.to_json(orient="records", date_format="iso", indent=2).replace("\x7f", "\\u007f") + "\n"
        )
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*summary.HEADS, box=None, pad_edge=False)
    for line in summary.table(rows):
        table.add_row(*(Text(one_line(cell)) for cell in line))
    width = None if sys.stdout.isatty() else 160  # nobody wraps a file
    console = Console(width=width)
    console.print(table)
    for note in summary.notes(rows):
        console.print(one_line(note), highlight=False, markup=False)


def _print_matrix(heads: list[str], rows: list[list[str]], notes: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 320, highlight=False)
    console.print(table)
    for note in notes:
        console.print(one_line(note), markup=False)
