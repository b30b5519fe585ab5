"""A report as people see it: in the terminal, in a log, as a picture."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from sealift.migration import progress
from sealift.migration.display import Display, megabytes, print_report
from sealift.migration.timeline import timeline_png
from sealift.model import Estimate, Evidence, Prediction, Report, Round, Step, StepRecord, Strategy

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def report() -> Report:
    steps = [
        StepRecord(
            step=step, started=START + timedelta(seconds=n), duration_ms=900, sent_bytes=n * 100_000, note=""
        )
        for n, step in enumerate(Step)
    ]
    return Report(
        migration="m",
        container="redis",
        address="10.77.0.9",
        source="here",
        destination="there",
        outcome="committed",
        strategy=Strategy.PRE_COPY,
        why="the kernel tracks dirty pages",
        steps=steps,
        rounds=[Round(number=1, duration_ms=10, sent_bytes=5_000_000, skipped_bytes=4096)],
        frozen_ms=200.4,
        cut_ms=210,
        restore_ms=100,
        total_ms=8000,
        memory_bytes=5_000_000,
        file_bytes=10,
        image_bytes=0,
        metadata_bytes=30_000,
        lab="netns",
        accelerator="none",
        evidence=Evidence.ABSENT,
        estimate=Estimate(
            memory_bytes=5_000_000,
            dirty_bytes_s=1e6,
            dirty_how="soft-dirty",
            link_bytes_s=1e8,
            link_how="measured",
            floor_ms=150,
            fixed_ms=3000,
            learned=True,
            predictions=[Prediction(strategy=Strategy.PRE_COPY, freeze_ms=180, total_ms=4100)],
        ),
        since_estimate_ms=5200,
        warnings=["beware"],
    )


def test_the_timeline_is_a_png_of_the_promised_size(report: Report) -> None:
    picture = timeline_png(report)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (1000, 500)


def test_what_was_waited_for_after_the_freeze_is_printed(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    print_report(report)
    assert "a process waited" not in capsys.readouterr().out
    print_report(
        report.model_copy(update={"stall_ms": 312.5, "longest_wait_ms": 40.0, "complete_ms": 2400.0})
    )
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "then a process waited 312.5 ms for its memory, 40.0 ms of it for one page; "
        "all of it was there after 2.4 s" in said
    )


def test_the_printed_report_says_everything(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report)
    shown = capsys.readouterr().out
    for part in (
        *Step,
        "here → there, committed",
        "pre-copy",
        "round 1    5.0 MB",
        "frozen     200.4 ms",
        "predicted  freeze 180 ms, measured 200 ms; from then on 4.1 s, measured 5.2 s",
        "absent",
    ):
        assert part in shown
    assert "netns, accelerator none" in shown
    assert "beware" in shown


def test_a_report_is_the_same_after_json(report: Report) -> None:
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_log_gets_one_line_for_each_step_that_has_ended(report: Report) -> None:
    stream = io.StringIO()
    with progress.listening(Display(stream)):
        for record in report.steps:
            progress.tell_began("web", record.step)
            progress.tell_ended("web", record)
    progress.tell_ended("web", report.steps[0])
    lines = stream.getvalue().splitlines()
    assert [line[:15].strip() for line in lines] == [step.value for step in Step]


@pytest.mark.parametrize(
    ("amount", "shown"), [(0, "0 B"), (99_999, "99999 B"), (100_000, "0.1 MB"), (1.5e9, "1500.0 MB")]
)
def test_amounts_are_readable(amount: int, shown: str) -> None:
    assert megabytes(amount) == shown
