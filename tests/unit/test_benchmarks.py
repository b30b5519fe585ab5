"""Results: rows that are never lost or mixed up with somebody else's, changes told from noise, pictures and pages."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import benchmarks as bench
from benchmarks import compare, frames, plots, report, summary
from benchmarks import sweep as sweeps
from benchmarks.evaluate import Measured, seen
from benchmarks.peers import containers
from benchmarks.point import Point
from benchmarks.workloads import catalogue
from benchmarks.workloads.client import Findings, Responses
from benchmarks.workloads.workload import SMALL_BYTES
from sealift.errors import UnusableInput

PLAN = """
name = "tiny"
repeats = 4

[[axes]]
system = ["sealift", "docker"]
memory_mb = [1, 2, 3]
"""


def row(**other: Any) -> dict[str, Any]:
    point = Point(system=other.pop("system", "sealift"))
    key = hashlib.sha256(repr(sorted(other.items(), key=str)).encode()).hexdigest()[:12]
    return {
        "row": f"{point.system}-{key}",
        "sweep": "tiny",
        "started": datetime(2026, 1, 1, tzinfo=UTC),
        "system": point.system,
        "strategy": "stop-and-copy",
        "asked_strategy": "auto",
        "workload": "redis",
        "memory_bytes": 100_000_000,
        "dirty_mb_s": 0.0,
        "locality": 1.0,
        "at_once": 1,
        "path": "tunnel",
        "lab": "netns",
        "accelerator": "none",
        "evidence": "absent",
        "outcome": "committed",
        "client_gap_ms": 800.0,
        "frozen_ms": 700.0,
        "total_ms": 3000.0,
        "lost": 0,
        "load": 0.1,
        **other,
    }


def rows(gaps: list[float], **other: Any) -> pd.DataFrame:
    return frames.frame(
        row(client_gap_ms=gap, frozen_ms=gap, repeat=number, **other) for number, gap in enumerate(gaps)
    )


def test_a_frame_has_the_documented_types_and_keeps_them_in_a_file(tmp_path: Path) -> None:
    made = frames.frame([row(), {"row": "b-0", "system": "docker", "outcome": "failed", "error": "no"}])
    expected = {name: column.dtype for name, column in frames.COLUMNS.items()}
    assert {name: str(dtype).replace("str", "string") for name, dtype in made.dtypes.items()} == {
        name: dtype.replace("str", "string") for name, dtype in expected.items()
    } or {name: str(dtype) for name, dtype in made.dtypes.items()} == expected
    frames.write(made, tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(frames.read(tmp_path / "rows.parquet"), made)
    pd.testing.assert_frame_equal(bench.load(tmp_path), made)


def test_an_undocumented_column_is_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        frames.frame([{**row(), "colour": "blue"}])


def damaged(path: Path, how: str) -> None:
    frames.write(frames.frame([row()]), path)
    content = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("gap,1\n")
    elif how == "another program's":
        pq.write_table(pa.table({"x": [1]}), path)
    elif how == "a later format's":
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({frames.FORMAT_KEY: b"9"}), path)
    else:
        path.unlink()


@pytest.mark.parametrize(
    "how", ["empty", "truncated", "text", "another program's", "a later format's", "missing"]
)
def test_a_bad_result_file_is_named(tmp_path: Path, how: str) -> None:
    path = tmp_path / "bad.parquet"
    damaged(path, how)
    with pytest.raises(UnusableInput, match=re.escape(str(path))):
        bench.load(path)


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=re.escape(str(tmp_path))):
        bench.load(tmp_path)


def test_points_of_a_plan_come_each_once_and_in_an_order_that_the_seed_gives(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN + '[[axes]]\nsystem = ["docker"]\nmemory_mb = [1]\nstrategy = ["pre-copy"]\n')
    plan = sweeps.read_plan(path)
    # Docker has no strategies: asked for one, it is the same point again.
    assert len(plan.points()) == 6
    assert len(plan.order()) == 24
    assert plan.order() == sweeps.read_plan(path).order()
    assert plan.order() != plan.model_copy(update={"seed": 2}).order()
    assert plan.order() != sorted(plan.order(), key=str)


def test_files_and_driver_are_sealift_s_to_choose() -> None:
    chosen = Point(small_files=20_000, volume_mb=2000, driver="engine")
    assert chosen.settled() == chosen
    assert chosen.model_copy(update={"system": "docker"}).settled() == Point(system="docker")


@pytest.mark.parametrize("name", ["files", "flow", "nightly", "peers", "quick", "readme"])
def test_the_plans_that_come_with_sealift_are_plans(name: str) -> None:
    path = Path(bench.__file__).parent / "sweeps" / f"{name}.toml"
    assert sweeps.read_plan(path).name == name


def test_small_files_are_put_into_the_container_before_it_starts() -> None:
    workload = catalogue.make("redis", 1, 0, 1, None)
    with tarfile.open(fileobj=io.BytesIO(containers.packed(replace(workload, small_files=250)))) as archive:
        members = archive.getmembers()
    assert len({member.name for member in members}) == 250
    assert {member.size for member in members} == {SMALL_BYTES}


@pytest.mark.parametrize("text", ["", "name=1", PLAN + "x=", PLAN.replace("system", "sistem"), "\0"])
def test_a_bad_plan_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(UnusableInput, match=re.escape(str(path))):
        sweeps.read_plan(path)


SWEEPER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from benchmarks import sweep as sweeps
from benchmarks.evaluate import Measured

folder = Path(sys.argv[1])
plan = sweeps.read_plan(folder / "plan.toml")
results = sweeps.Results(folder / "results", plan)

def measure(point, repeat):
    with (folder / "measured").open("a") as log:
        log.write(f"began {point.key(repeat)}\\n")
    time.sleep(0.02)
    return Measured({"row": point.key(repeat), "sweep": plan.name, "system": point.system,
                     "started": datetime.now(UTC), "outcome": "committed"})

for measured in sweeps.run(plan, results, measure, lambda progress: None):
    with (folder / "measured").open("a") as log:
        log.write(f"kept {measured.row['row']}\\n")
results.gather()
"""


def test_a_sweep_that_is_killed_again_and_again_loses_no_finished_row_and_repeats_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    script = tmp_path / "sweeper.py"
    script.write_text(SWEEPER)
    log = tmp_path / "measured"
    kills = 0
    while True:
        process = subprocess.Popen([sys.executable, script, tmp_path])
        begun = log.read_text().count("began") if log.exists() else 0
        try:
            while process.poll() is None and kills < 3:
                time.sleep(0.01)
                if log.exists() and log.read_text().count("began") >= begun + 5:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
            process.wait(60)
        finally:
            process.kill()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    lines = log.read_text().splitlines()
    kept = [line.removeprefix("kept ") for line in lines if line.startswith("kept")]
    began = [line.removeprefix("began ") for line in lines if line.startswith("began")]
    found = bench.load(tmp_path / "results")
    assert kills == 3
    assert sorted(found["row"]) == sorted(set(began))
    assert len(found) == 24
    for key in kept:
        assert kept.count(key) == 1
        assert began.count(key) <= 1 + kills
        assert key not in began[began.index(key) + 1 :] or began.count(key) > 1
    # What was finished was not begun again: a row begun twice was lost to a kill before it was finished.
    for key in set(began):
        last = len(lines) - 1 - lines[::-1].index(f"began {key}")
        assert f"kept {key}" not in lines[:last]


def test_results_of_another_sweep_are_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    sweeps.Results(tmp_path / "results", sweeps.read_plan(tmp_path / "plan.toml"))
    (tmp_path / "plan.toml").write_text(PLAN.replace("1, 2, 3", "1, 2"))
    with pytest.raises(UnusableInput, match="another sweep"):
        sweeps.Results(tmp_path / "results", sweeps.read_plan(tmp_path / "plan.toml"))


def test_failed_points_are_rows(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    plan = sweeps.read_plan(tmp_path / "plan.toml")
    results = sweeps.Results(tmp_path / "results", plan)

    def fail(point: Point, repeat: int) -> Measured:
        return Measured(
            {"row": point.key(repeat), "system": point.system, "outcome": "failed", "error": "no way"}
        )

    told: list[str] = []
    list(sweeps.run(plan, results, fail, lambda progress: told.append(str(progress))))
    assert set(bench.load(results.gather())["error"]) == {"no way"}
    assert len(told) == 24
    assert "left" in told[-1]


def test_noise_is_no_regression_and_a_regression_is_none_of_the_noise() -> None:
    random = np.random.default_rng(3)
    quiet = rows(list(random.normal(800, 20, 12)))
    same = rows(list(random.normal(800, 20, 12)))
    slower = rows(list(random.normal(1000, 20, 12)))
    assert not any(change.worse or change.better for change in compare.changes(quiet, same))
    gap = next(c for c in compare.changes(quiet, slower) if c.metric == "client_gap_ms")
    assert gap.worse
    assert 0.2 < gap.change < 0.3
    assert gap.low <= gap.change <= gap.high
    assert next(c for c in compare.changes(slower, quiet) if c.metric == "client_gap_ms").better


def test_points_measured_too_seldom_or_only_once_are_not_compared() -> None:
    with pytest.raises(UnusableInput, match="no point in common"):
        compare.changes(rows([800, 810]), rows([800, 810]))
    with pytest.raises(UnusableInput, match="no point in common"):
        compare.changes(rows([1, 2, 3]), rows([1, 2, 3], lab="vm"))


def test_the_command_line_ends_with_1_on_a_regression_and_with_0_without(tmp_path: Path) -> None:
    frames.write(rows([800, 805, 810, 800]), tmp_path / "before.parquet")
    frames.write(rows([1600, 1605, 1610, 1600]), tmp_path / "after.parquet")

    def ends(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", "bench", "compare", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    before, after = str(tmp_path / "before.parquet"), str(tmp_path / "after.parquet")
    worse = ends(before, after, "--json")
    assert worse.returncode == 1
    assert any(change["worse"] for change in json.loads(worse.stdout))
    assert ends(after, before).returncode == 0
    assert ends(before, before).returncode == 0
    (tmp_path / "after.parquet").write_bytes(b"PAR1")
    broken = ends(before, after)
    assert broken.returncode == 1
    assert "after.parquet is damaged" in broken.stderr


def everything() -> pd.DataFrame:
    parts = [
        rows([800, 820, 810]),
        rows([500, 505], system="floor"),
        rows([4000, 4100, 4050], system="docker"),
        rows([900, 910], memory_bytes=300_000_000),
        rows([700, 720], path="plain"),
        rows([1200, 1300], at_once=2),
        rows([900, 950], workload="memory", dirty_mb_s=20.0),
        rows([1000, 1100], workload="memory", dirty_mb_s=50.0),
    ]
    absent = frames.frame([row(system="whole-vm", outcome="absent", error="no VM", client_gap_ms=None)])
    return pd.concat([*parts, absent], ignore_index=True)


def test_all_pictures_are_drawn_from_rows_and_none_from_nothing() -> None:
    assert plots.pictures(everything()).keys() == plots.PICTURES.keys()
    assert plots.pictures(frames.frame([])) == {}
    for _, figure in plots.pictures(everything()).values():
        assert plots.png(figure).startswith(b"\x89PNG")


def test_the_table_holds_ratios_to_the_floor_and_says_why_something_is_absent() -> None:
    lines = summary.table(everything())
    ratios = {(line[1], line[2]): line[summary.HEADS.index("of the floor")] for line in lines}
    assert ratios["redis 100 MB", "sealift"] == "1.6"
    assert ratios["redis 100 MB", "docker"] == "8.1"
    assert "whole-vm, redis: no VM" in summary.notes(everything())


def test_what_was_measured_with_files_or_without_the_flow_is_another_point() -> None:
    parts = [
        rows([800, 820, 810]),
        rows([820, 830, 840], small_files=20_000),
        rows([830, 840, 850], volume_bytes=2_000_000_000),
        rows([700, 710, 720], driver="engine"),
    ]
    titles = {line[1:3] for line in summary.table(pd.concat(parts, ignore_index=True))}
    assert titles == {
        ("redis 100 MB", "sealift"),
        ("redis 100 MB, 20,000 small files", "sealift"),
        ("redis 100 MB, 2,000,000,000 bytes of volume", "sealift"),
        ("redis 100 MB", "sealift, engine"),
    }
    for other in parts[1:]:
        with pytest.raises(UnusableInput, match="no point in common"):
            compare.changes(parts[0], other)


def test_the_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    frames.write(everything(), tmp_path / "rows.parquet")
    report.write_page([tmp_path], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/png;base64,') == len(plots.PICTURES)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "whole-vm, redis: no VM" in page


def test_emulated_evidence_is_called_that_on_the_page(tmp_path: Path) -> None:
    frames.write(rows([1, 2, 3], evidence="emulated"), tmp_path / "rows.parquet")
    report.write_page([tmp_path], tmp_path / "page.html")
    assert "<b>emulated</b>" in (tmp_path / "page.html").read_text()


def test_the_readmes_figures_come_from_the_rows_and_stand_between_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    frames.write(everything(), tmp_path / "rows.parquet")
    for _ in range(2):
        report.write_readme([tmp_path / "rows.parquet"], readme)
        text = readme.read_text()
        assert text.startswith("before\n")
        assert text.endswith(f"{report.END}\nafter\n")
        assert "old" not in text
        assert "| netns | redis 100 MB | sealift | stop-and-copy | 810 |" in text
        pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
        assert pictures
        for picture in pictures:
            assert picture.startswith("figures/")
            assert (tmp_path / picture).is_file(), "beside the page that links it"
    readme.write_text("no place\n")
    with pytest.raises(UnusableInput, match="no place for figures"):
        report.write_readme([tmp_path / "rows.parquet"], readme)


def test_rows_are_loaded_from_a_folder_that_holds_response_times_too(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    results = sweeps.Results(tmp_path / "results", sweeps.read_plan(tmp_path / "plan.toml"))
    times = Responses(1000.0, np.array([0.0], "f4"), np.array([1.0], "f4"))
    results.keep(Measured(row(), times))
    assert len(bench.load(tmp_path / "results")) == 1
    results.gather()
    assert len(bench.load(tmp_path)) == 1
    assert results.finished() == {row()["row"]}


def test_response_times_come_back_as_they_were_and_know_which_fell_into_a_time(tmp_path: Path) -> None:
    made = Responses(1000.0, np.array([0.0, 1.0, 2.0], "f4"), np.array([1.0, 900.0, 2.0], "f4"))
    sweeps.write_responses(made, tmp_path / "responses" / "a.parquet")
    back = sweeps.read_responses(tmp_path / "responses" / "a.parquet")
    assert back.began_unix == made.began_unix
    assert back.took_ms.tolist() == made.took_ms.tolist()
    assert made.between(1001.5, 1001.6).longest_ms == 900.0
    assert made.between(1000.5, 1000.9).longest_ms is None


@pytest.mark.parametrize(("error", "gap_ms"), [(None, 900), ("TimeoutError", 57_998)])
def test_a_client_that_lost_its_connection_has_waited_to_the_end_of_the_move(
    error: str | None, gap_ms: float
) -> None:
    at, took = np.array([0.0, 1.0, 2.0], "f4"), np.array([1.0, 900.0, 2.0], "f4")
    packed = base64.b64encode(zlib.compress(np.concatenate([at, took]).tobytes())).decode()
    found = Findings(3, 2.0, 900.0, 2.0, [], error, {"began_unix": 1000.0, "responses": packed})
    assert seen([found], 1000.5, 1060.0)["client_gap_ms"] == pytest.approx(gap_ms, abs=1)
