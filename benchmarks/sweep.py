"""A sweep: many points, in random order, of which every finished one is kept, whatever becomes of the sweep.

Its results are a folder: one small file per finished row while it goes on, one file of all rows in the end. A
sweep that is started again in the same folder goes on with the rows that are not there.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import time
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks import frames
from benchmarks.point import Point
from benchmarks.workloads.client import Responses
from sealift.errors import UnusableInput
from sealift.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd

    from benchmarks.evaluate import Measured

ROWS = "rows.parquet"
PLAN = "sweep.sha256"
RESPONSES = "responses"
RESPONSES_SUFFIX = ".times"
"""Parquet too, but no rows: a folder's rows are its `.parquet` files."""

REPORTS = "reports"


class Sweep(BaseModel):
    """A plan, as its TOML file has it. Each `[[axes]]` is a table of lists; its points are all their combinations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = 1
    repeats: int = Field(default=3, ge=1, le=100)
    axes: list[dict[str, list[Any]]] = Field(min_length=1)

    def points(self) -> list[Point]:
        """All points, each once."""
        found = [
            Point(**dict(zip(table, values, strict=True))).settled()
            for table in self.axes
            for values in itertools.product(*table.values())
        ]
        return list(dict.fromkeys(found))

    def order(self) -> list[tuple[Point, int]]:
        """Every point and repeat, shuffled by the seed, so that what drifts with time is not taken for an effect.

        Labs come one after the other: bringing one up takes longer than a point.
        """
        turns = [(point, repeat) for point in self.points() for repeat in range(self.repeats)]
        random.Random(self.seed).shuffle(turns)  # noqa: S311 - an order, no secret
        labs = list(dict.fromkeys(point.lab for point, _ in turns))
        return sorted(turns, key=lambda turn: labs.index(turn[0].lab))

    def digest(self) -> str:
        """What the plan measures, without its seed and number of repeats: those may change as it goes on."""
        described = "\n".join(point.model_dump_json() for point in self.points())
        return hashlib.sha256(f"{self.name}\n{described}".encode()).hexdigest()


PLAN_LIMIT = 1 << 20


def read_plan(path: Path) -> Sweep:
    """A sweep out of a TOML file. UnusableInput names the file and what is wrong in it."""
    try:
        sweep = Sweep.model_validate(tomllib.loads(read_bounded(path, PLAN_LIMIT).decode()))
        sweep.points()
    except (ValueError, RecursionError) as unreadable:
        raise UnusableInput(f"{path} is not readable as TOML: {unreadable}") from unreadable
    except ValidationError as invalid:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors())
        raise UnusableInput(
            f"{path} is no sweep: {faults}", remedy="benchmarks/sweeps/ has some to start from"
        ) from invalid
    return sweep


@dataclass(frozen=True)
class Progress:
    """How far a sweep has come."""

    done: int
    all: int
    title: str
    left_s: float | None
    """Expected time to the end, by the rows of this run; None before the first."""

    def __str__(self) -> str:
        left = "" if self.left_s is None else f", about {_duration(self.left_s)} left"
        return f"{self.done + 1} of {self.all}{left}: {self.title}"


class Results:
    """The folder of a sweep."""

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        self.folder = folder
        self.sweep = sweep
        folder.mkdir(parents=True, exist_ok=True)
        plan = folder / PLAN
        if plan.exists() and plan.read_text().strip() != sweep.digest():
            raise UnusableInput(
                f"{folder} holds the results of another sweep",
                remedy="Name another folder with --results, or remove this one",
            )
        plan.write_text(f"{sweep.digest()}\n")

    def finished(self) -> set[str]:
        """Keys of the rows that are there."""
        rows = self.load()
        return set(rows["row"])

    def load(self) -> pd.DataFrame:
        """All rows so far."""
        files = sorted(self.folder.glob("*.parquet"))
        return frames.load(*files) if files else frames.frame([])

    def keep(self, measured: Measured) -> None:
        """Store one finished row. Once this has returned, nothing loses it."""
        key = measured.row["row"]
        # First what belongs to the row: a row without it could not be told from one that never had it.
        if measured.responses is not None:
            write_responses(measured.responses, self.folder / RESPONSES / f"{key}{RESPONSES_SUFFIX}")
        if measured.report is not None:
            path = self.folder / REPORTS / f"{key}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(measured.report.model_dump_json())
        frames.write(frames.frame([measured.row]), self.folder / f"{key}.parquet")

    def gather(self) -> Path:
        """Put all rows into one file. A kill in between leaves rows in two places, which `frames.load` counts once."""
        path = self.folder / ROWS
        singles = [file for file in sorted(self.folder.glob("*.parquet")) if file != path]
        if singles:
            frames.write(self.load(), path)
            for file in singles:
                file.unlink()
        return path


def run(
    sweep: Sweep,
    results: Results,
    measure: Callable[[Point, int], Measured],
    tell: Callable[[Progress], None],
    lab: str | None = None,
) -> Iterator[Measured]:
    """Measure what is missing, in one kind of lab if told so, row by row. Each is stored before it is handed out."""
    finished = results.finished()
    order = sweep.order()
    missing = [
        (point, repeat)
        for point, repeat in order
        if point.key(repeat) not in finished and lab in {None, point.lab}
    ]
    took: list[float] = []
    for number, (point, repeat) in enumerate(missing):
        left = sum(took) / len(took) * (len(missing) - number) if took else None
        tell(Progress(len(finished) + number, len(order), point.title(), left))
        began = time.monotonic()
        measured = measure(point, repeat)
        results.keep(measured)
        took.append(time.monotonic() - began)
        yield measured


def write_responses(responses: Responses, path: Path) -> None:
    """Every response time of one measurement, beside the rows."""
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"at_s": responses.at_s, "took_ms": responses.took_ms})
    table = table.replace_schema_metadata({b"began_unix": repr(responses.began_unix).encode()})
    pq.write_table(table, path, compression="zstd")


def read_responses(path: Path) -> Responses:
    """What `write_responses` has stored. UnusableInput where that is not it."""
    try:
        table = pq.read_table(path)
        began = float((table.schema.metadata or {})[b"began_unix"])
        return Responses(began, table["at_s"].to_numpy(), table["took_ms"].to_numpy())
    except (OSError, pa.ArrowException, KeyError, ValueError) as unreadable:
        raise UnusableInput(f"{path} holds no response times: {unreadable}") from unreadable


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
