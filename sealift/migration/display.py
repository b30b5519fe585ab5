"""Show a migration on a terminal: its steps while they run, its report at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sealift.migration import progress
from sealift.model import Evidence
from sealift.plain_text import one_line, printable

if TYPE_CHECKING:
    from sealift.model import Estimate, Report, Step, StepRecord


class Display(progress.Listener):
    """One line a step. A terminal also shows the running step; a log has only finished ones.

    With `named` each line begins with its container.
    """

    def __init__(self, stream: TextIO, *, named: bool = False) -> None:
        self._named = named
        self._console = Console(file=stream, highlight=False)
        self._status = self._console.status("") if self._console.is_terminal else None

    def begin(self, what: str) -> None:
        """Show at once what runs, since the first step ends only after logins and agents' starts."""
        self._console.print(f"migrating {one_line(what)}", markup=False)
        if self._status is not None:
            self._status.update(Text("connecting …"))
            self._status.start()

    def end(self) -> None:
        """Nothing runs any more. Restore the terminal."""
        if self._status is not None:
            self._status.stop()

    def began(self, container: str, step: Step) -> None:
        """Show the step as running."""
        if self._status is not None:
            self._status.update(Text(f"{self._name(container)}{step.value} …"))
            self._status.start()

    def ended(self, container: str, record: StepRecord) -> None:
        """Show the step as done."""
        if self._status is not None:
            self._status.stop()
        amount = f"  {megabytes(record.sent_bytes)}" if record.sent_bytes else ""
        note = f"  ({record.note})" if record.note else ""
        self._console.print(
            f"{self._name(container)}{record.step.value:<15}{record.duration_ms:9.1f} ms{amount}{note}",
            markup=False,
        )

    def _name(self, container: str) -> str:
        return f"{one_line(container):<12} " if self._named else ""


def print_report(report: Report, client: Any = None) -> None:
    """The report for a person, on standard output."""
    console = Console(highlight=False)
    table = Table("step", "started (UTC)", "duration", "sent", "note", box=None, pad_edge=False)
    for record in report.steps:
        table.add_row(
            record.step.value,
            f"{record.started:%H:%M:%S.%f}"[:-3],
            f"{record.duration_ms:.1f} ms",
            megabytes(record.sent_bytes) if record.sent_bytes else "",
            Text(one_line(record.note)),
        )
    console.print(table)
    packed = "" if report.packed_bytes is None else f" (compressed to {megabytes(report.packed_bytes)})"
    lines = [
        "",
        f"{report.container} ({report.address}): {report.source} → {report.destination}, {report.outcome}",
        f"strategy   {report.strategy.value}: {report.why}",
        *(
            f"round {made.number}    {megabytes(made.sent_bytes)} in {made.duration_ms:.0f} ms, "
            f"{megabytes(made.skipped_bytes)} unchanged"
            for made in report.rounds
        ),
        *(
            [f"throttled  to {report.throttled_cpus:.2f} CPUs, until the freeze"]
            if report.throttled_cpus is not None
            else []
        ),
        f"frozen     {report.frozen_ms:.1f} ms; traffic cut {report.cut_ms:.1f} ms; all in all "
        f"{report.total_ms / 1000:.1f} s",
        *_stalled(report),
        *_predicted(report),
        f"sent       memory {megabytes(report.memory_bytes)}{packed}, files {megabytes(report.file_bytes)}, image "
        f"{megabytes(report.image_bytes)}, metadata {megabytes(report.metadata_bytes)}",
        f"evidence   {report.evidence.value}"
        + (
            "  (the destination was NOT verified, as asked for)" if report.evidence is Evidence.ABSENT else ""
        ),
        *(f"           {sentence}" for sentence in report.verified),
    ]
    if report.lab:
        lines.append(f"lab        {report.lab}, accelerator {report.accelerator}")
    lines += [f"warning    {warning}" for warning in report.warnings]
    if client is not None:
        lines.append(f"client     {client.summary()}")
    console.print("\n".join(map(printable, lines)), markup=False)


def _stalled(report: Report) -> list[str]:
    """What processes waited for memory that followed."""
    if report.stall_ms is None:
        return []
    return [
        f"then       a process waited {report.stall_ms:.1f} ms for its memory, {report.longest_wait_ms:.1f} ms of "
        f"it for one page; all of it was there after {(report.complete_ms or 0) / 1000:.1f} s"
    ]


def _predicted(report: Report) -> list[str]:
    """The prediction for this strategy, and what was measured."""
    predicted = report.estimate.of(report.strategy) if report.estimate is not None else None
    if predicted is None:
        return []
    return [
        f"predicted  freeze {predicted.freeze_ms:.0f} ms, measured {report.frozen_ms:.0f} ms; from then on "
        f"{predicted.total_ms / 1000:.1f} s, measured {report.since_estimate_ms / 1000:.1f} s"
    ]


def estimate_lines(estimate: Estimate) -> list[str]:
    """What was sampled, and the prediction for each strategy."""
    dirty = "unknown" if estimate.dirty_bytes_s is None else f"{megabytes(int(estimate.dirty_bytes_s))}/s"
    link = "unknown" if estimate.link_bytes_s is None else f"{megabytes(int(estimate.link_bytes_s))}/s"
    by = f", by {estimate.streams} connections" if estimate.streams > 1 else ""
    constants = (
        "learned from the last migration" if estimate.learned else "assumed, before the first migration"
    )
    return [
        f"memory     {megabytes(estimate.memory_bytes)}, dirty {dirty} ({estimate.dirty_how})",
        f"link       {link} ({estimate.link_how}{by}); fixed times: {constants}",
        *(
            f"predicted  {one.strategy.value}: freeze {one.freeze_ms:.0f} ms, all in all {one.total_ms / 1000:.1f} s"
            for one in estimate.predictions
        ),
    ]


def megabytes(amount: int) -> str:
    """An amount of bytes in a form for people."""
    return f"{amount / 1e6:.1f} MB" if amount >= 100_000 else f"{amount} B"
