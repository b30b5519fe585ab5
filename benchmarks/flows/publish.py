"""What the flows that measure show in Prefect's UI. None of it is worth waiting for, as with a migration."""

from __future__ import annotations

import base64
import sys
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from benchmarks import plots, summary
from flows.publish import UNSEEN
from sealift.plain_text import in_markdown

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from benchmarks.compare import Change
    from benchmarks.sweep import Progress


class SweepProgress:
    """How far a sweep has come: a line on standard error, and Prefect's progress artifact."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None

    def tell(self, progress: Progress) -> None:
        """A point begins."""
        sys.stderr.write(f"{progress}\n")
        percent = 100.0 * progress.done / max(progress.all, 1)
        with suppress(*UNSEEN):
            if self._artifact is None:
                made = create_progress_artifact(progress=percent, key="sweep-progress", description="Sweep")
                self._artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._artifact, progress=percent, description=str(progress))


def publish_rows(rows: pd.DataFrame, results: Path) -> None:
    """A sweep's results: the table of medians, and every picture that they have something for."""
    with suppress(*UNSEEN):
        lines = "\n".join(f"- {in_markdown(line)}" for line in summary.provenance(rows))
        create_markdown_artifact(
            key="sweep-results", markdown=f"{summary.markdown(rows)}\n{lines}\n", description=str(results)
        )
        for name, (title, figure) in plots.pictures(rows).items():
            picture = base64.b64encode(plots.png(figure)).decode()
            create_image_artifact(
                key=f"sweep-{name}", image_url=f"data:image/png;base64,{picture}", description=title
            )


def publish_comparison(changes: list[Change]) -> None:
    """What has become slower or faster, and how sure that is."""
    table = [
        {
            "point": in_markdown(change.point),
            "metric": change.metric,
            "before": round(change.before, 1),
            "after": round(change.after, 1),
            "change": f"{change.change:+.1%}",
            "95 %": f"{change.low:+.1%} to {change.high:+.1%}",
            "verdict": "slower" if change.worse else "faster" if change.better else "",
        }
        for change in changes
    ]
    with suppress(*UNSEEN):
        create_table_artifact(key="comparison", table=table, description="Medians, before and after")
