"""A picture of a migration's timeline: every step, and the cutover enlarged."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from sealift.model import CUTOVER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sealift.model import Report, StepRecord

RUNNING, CUT = "#0072B2", "#D55E00"
"""Okabe and Ito's blue and vermilion. Colour-blind people can tell them apart, also in grey."""


def timeline_png(report: Report) -> bytes:
    """A PNG of 1000 by 500 pixels."""
    # Not pyplot, since it has global state and may need a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - it takes half a second
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    whole, cutover = figure.subplots(2, 1, height_ratios=(8, 5))
    _bars(whole, report.steps, unit=1000.0)
    whole.set_xlabel("seconds since the start")
    whole.set_title(
        f"{report.container}: {report.source} → {report.destination}, {report.strategy.value}, "
        f"frozen {report.frozen_ms:.0f} ms, evidence {report.evidence.value}",
        fontsize=10,
    )
    _bars(cutover, [record for record in report.steps if record.step in CUTOVER], unit=1.0)
    cutover.set_xlabel("milliseconds since the traffic was cut")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _bars(axes: Axes, records: list[StepRecord], *, unit: float) -> None:
    first = min(record.started for record in records)
    for row, record in enumerate(records):
        left = (record.started - first).total_seconds() * 1000 / unit
        colour = CUT if record.step in CUTOVER else RUNNING
        axes.barh(row, record.duration_ms / unit, left=left, color=colour, height=0.7)
        axes.text(
            left + record.duration_ms / unit, row, f" {record.duration_ms:.0f} ms", va="center", fontsize=8
        )
    axes.set_yticks(range(len(records)), [record.step.value for record in records], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
