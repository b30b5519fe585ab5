"""What a flow run shows in Prefect's UI: progress while it runs, a table and a timeline at the end.

None of it is worth waiting for: where Prefect's API has gone away, a migration goes on without it.
"""

from __future__ import annotations

import base64
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import (
    create_image_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from sealift.migration import progress
from sealift.migration.timeline import timeline_png
from sealift.model import Report, Step, StepRecord
from sealift.plain_text import in_markdown

if TYPE_CHECKING:
    from collections.abc import Iterator

CUTOVER = {Step.FINAL_DUMP, Step.TRANSFER, Step.RESTORE}
"""Steps after which nobody writes to the API: the last of the cutover brings the bar up to date."""


UNSEEN = (PrefectException, HTTPError, OSError)
"""What goes wrong when Prefect's API is away: its client lets the errors of HTTP through."""


@contextmanager
def tried_once() -> Iterator[None]:
    """Ask the API once in this block: the client would ask a silent one for 70 seconds."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


class Progress(progress.Listener):
    """Prefect's progress artifact, moved at the end of every step outside of the cutover.

    The first move that fails is the last that is tried.
    """

    def __init__(self, containers: int = 1) -> None:
        self._all = len(Step) * containers
        self._artifact: UUID | None = None
        self._ended: set[tuple[str, Step]] = set()

    def began(self, container: str, step: Step) -> None:  # noqa: ARG002 - one bar for all
        """The first step brings the bar into being."""
        if self._artifact is None and step == Step.ATTEST:
            with suppress(*UNSEEN), tried_once():
                made = create_progress_artifact(
                    progress=0.0, key="migration-progress", description="Migration"
                )
                self._artifact = made if isinstance(made, UUID) else None

    def ended(self, container: str, record: StepRecord) -> None:
        """Move the bar."""
        self._ended.add((container, record.step))
        if self._artifact is not None and record.step not in CUTOVER:
            try:
                with tried_once():
                    update_progress_artifact(self._artifact, progress=100.0 * len(self._ended) / self._all)
            except UNSEEN:
                self._artifact = None


def publish(report: Report) -> None:
    """The report as a table of steps and a picture of them."""
    rows = [
        {
            "step": record.step.value,
            "started (UTC)": record.started.strftime("%H:%M:%S.%f")[:-3],
            "duration ms": round(record.duration_ms, 1),
            "bytes": record.sent_bytes,
            "note": in_markdown(record.note),  # the UI takes a cell for Markdown, too
        }
        for record in report.steps
    ]
    evidence = f"evidence: {report.evidence.value}" + (f", lab: {report.lab}" if report.lab else "")
    summary = (
        f"{report.container}: {report.source} → {report.destination}, {report.outcome}; {report.strategy.value} "
        f"({report.why}); frozen {report.frozen_ms:.0f} ms, cut {report.cut_ms:.0f} ms; {evidence}"
    )
    summary = "\n\n".join(map(in_markdown, [summary, *report.verified]))
    picture = base64.b64encode(timeline_png(report)).decode()
    with suppress(*UNSEEN), tried_once():
        create_table_artifact(key="migration-steps", table=rows, description=summary)
        create_image_artifact(
            key="migration-timeline", image_url=f"data:image/png;base64,{picture}", description=summary
        )
