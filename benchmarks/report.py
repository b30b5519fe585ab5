"""Results as a page that needs nothing beside it, and as the README's figures. No figure is typed by hand."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

from benchmarks import frames, plots, summary
from benchmarks.sweep import REPORTS, RESPONSES, RESPONSES_SUFFIX, read_responses
from sealift.errors import UnusableInput
from sealift.files import read_bounded
from sealift.model import Report
from sealift.plain_text import in_markdown, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
README_PICTURES = ("gap-by-memory", "gap-by-dirty-rate", "freeze-breakdown")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #111 }
table { border-collapse: collapse; font-size: 0.85rem } td, th { padding: 0.2rem 0.6rem; text-align: left }
th { border-bottom: 2px solid #111 } tr + tr td { border-top: 1px solid #ccc } img { max-width: 100% }
.emulated { border: 2px solid #D55E00; padding: 0.5rem 1rem }
@media print { body { margin: 0 } }
"""


REPORT_LIMIT = README_LIMIT = 16 << 20


def write_page(paths: Sequence[Path], output: Path) -> None:
    """One HTML file with tables and pictures inline. UnusableInput for paths that hold no results."""
    rows = frames.load(*paths)
    parts = [f"<h1>Sealift: what a migration costs</h1>{_marked(rows)}{_table(rows)}"]
    drawn = plots.pictures(rows)
    for title, figure in [*_timelines(paths, rows), *drawn.values()]:
        parts.append(f"<h2>{html.escape(title)}</h2>{_image(title, figure)}")
    parts.append("<h2>Where the figures come from</h2><ul>")
    parts += [f"<li>{html.escape(line)}</li>" for line in summary.provenance(rows)]
    parts.append("</ul><h2>Columns</h2><table><tr><th>column</th><th>type</th><th>holds</th></tr>")
    parts += [
        f"<tr><td>{name}</td><td>{column.dtype}</td><td>{html.escape(column.holds)}</td></tr>"
        for name, column in frames.COLUMNS.items()
    ]
    body = "\n".join([*parts, "</table>"])
    head = f'<meta charset="utf-8"><title>Sealift: what a migration costs</title><style>{STYLE}</style>'
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'
    output.write_text(printable(page))


def write_readme(paths: Sequence[Path], readme: Path) -> None:
    """Rewrite the block between the two marks of a page, and the pictures that it shows, in `figures` beside it.

    UnusableInput where the marks are missing.
    """
    rows = frames.load(*paths)
    text = read_bounded(readme, README_LIMIT).decode(errors="surrogateescape")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UnusableInput(
            f"{readme} has no place for figures", remedy=f"Put {BEGIN} and {END} where they shall stand"
        )
    folder = readme.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    drawn = plots.pictures(rows)
    for name in README_PICTURES:
        if name in drawn:
            title, figure = drawn[name]
            (folder / f"{name}.png").write_bytes(plots.png(figure))
            shown.append(f"![{title}](figures/{name}.png)\n")
    origin = "\n".join(f"- {in_markdown(line)}" for line in summary.provenance(rows))
    named = " ".join(map(str, paths))
    command = f"`sealift bench report {named} --readme {readme.name}` writes this section.\n"
    block = "\n".join([command, summary.markdown(rows), *shown, f"{origin}\n"])
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{printable(block)}{END}{after}", errors="surrogateescape")


def _marked(rows: pd.DataFrame) -> str:
    kinds = sorted(rows["evidence"].dropna().unique())
    if "emulated" in kinds:
        return '<p class="emulated">Some of these migrations had <b>emulated</b> evidence: no real chip signed it.</p>'
    return f"<p>Evidence: {html.escape(', '.join(kinds) or 'unknown')}.</p>"


def _table(rows: pd.DataFrame) -> str:
    lines = ["<table><tr>", *(f"<th>{html.escape(head)}</th>" for head in summary.HEADS), "</tr>"]
    lines += [
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in summary.table(rows)
    ]
    missing = "".join(f"<li>{html.escape(note)}</li>" for note in summary.notes(rows))
    return "".join(lines) + f"</table><ul>{missing}</ul>"


def _timelines(paths: Sequence[Path], rows: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """The timeline of one migration of every workload: of the repeats, the one in the middle."""
    own = rows[(rows["system"] == "sealift") & (rows["outcome"] == "committed")]
    for workload, group in own.groupby("workload"):
        ordered = group.sort_values("client_gap_ms")
        for key in ordered["row"].iloc[[len(ordered) // 2]]:
            for path in paths:
                responses = path / RESPONSES / f"{key}{RESPONSES_SUFFIX}"
                report = path / REPORTS / f"{key}.json"
                if responses.is_file() and report.is_file():
                    made = Report.model_validate_json(read_bounded(report, REPORT_LIMIT))
                    figure = plots.timeline(read_responses(responses), made)
                    yield f"{workload}: every response through a migration", figure


def _image(title: str, figure: Figure) -> str:
    picture = base64.b64encode(plots.png(figure)).decode()
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{picture}">'
