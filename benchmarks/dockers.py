"""The gap and the freeze with two versions of Docker, one migration of a Redis after the other.

    python -m benchmarks.dockers PAIRS [RESULTS]

Two labs are up, each in a network namespace of its own. Which one comes first changes with each pair, so what else the
machine does is the same for both. RESULTS is a file of rows (benchmarks/results/dockers.json), to which rows are added.
Needs root. The Redis image is built first, where it is missing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import engine, kept
from benchmarks.evaluate import evaluate
from benchmarks.measure.origin import code
from benchmarks.point import Point
from benchmarks.testbed import Testbed
from sealift.lab import images, lab
from sealift.paths import run_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VERSIONS = ("26", "28")
END_S = 300
RESULTS = Path("benchmarks/results/dockers.json")


@dataclass(frozen=True)
class Row:
    """One migration. Times in milliseconds; null if it failed, for the reason in `error`."""

    pair: int
    docker: str
    gap_ms: float | None
    freeze_ms: float | None
    load: float
    code: str
    error: str | None


def compared(rows: Sequence[Row]) -> list[str]:
    """Lines with the medians of each version, over the pairs of which both have a gap, and the later by the earlier."""
    gaps = {(row.pair, row.docker): row for row in rows if row.gap_ms is not None}
    whole = [pair for pair, docker in gaps if docker == VERSIONS[0] and (pair, VERSIONS[1]) in gaps]
    if not whole:
        return ["no pair in which both migrations were measured"]
    lines = []
    for name in ("gap_ms", "freeze_ms"):
        values = [median(getattr(gaps[pair, docker], name) for pair in whole) for docker in VERSIONS]
        lines.append(
            f"{name}: Docker {VERSIONS[0]} {values[0]:.0f}, Docker {VERSIONS[1]} {values[1]:.0f}, "
            f"{values[1] / values[0]:.2f} times (medians of {len(whole)} pairs)"
        )
    return lines


@contextmanager
def _lab(docker: str) -> Iterator[subprocess.Popen[str]]:
    """The process of one lab. At the end of the block the lab is down."""
    process = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-m", "benchmarks.dockers", "lab", docker],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SEALIFT_RUN": str(run_dir() / f"docker-{docker}"), lab.DOCKER_VARIABLE: docker},
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(END_S)


def _serve(docker: str) -> None:
    """Be one lab: for each line of standard input, which has a pair's number, migrate and print the row."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(["ip", "link", "set", "lo", "up"])
    try:
        inventory = lab.up("netns", say=lambda _: None)
        for line in sys.stdin:
            with Testbed.open(inventory, say=lambda _: None) as testbed:
                found = evaluate(testbed, Point(memory_mb=20, driver="engine"), int(line), engine.alone).row
            row = Row(
                pair=int(line),
                docker=docker,
                gap_ms=found.get("client_gap_ms"),
                freeze_ms=found.get("frozen_ms"),
                load=found["load"],
                code=code(),
                error=found.get("error"),
            )
            print(json.dumps(asdict(row)), flush=True)  # noqa: T201 - the answer
    except KeyboardInterrupt:
        pass
    finally:
        lab.down()


def main(pairs: int, results: Path) -> None:
    """Measure so many pairs more, and print the medians of all."""
    images.build(images.REDIS, say=lambda _: None)  # built here, since the labs have no network
    rows = kept.stored(
        results, lambda fields: Row(**fields), "rows of Docker", "python -m benchmarks.dockers"
    )
    first = max((row.pair for row in rows), default=0) + 1
    with ExitStack() as stack:
        labs = {docker: stack.enter_context(_lab(docker)) for docker in VERSIONS}
        for pair in range(first, first + pairs):
            for docker in VERSIONS if pair % 2 else reversed(VERSIONS):
                asked, said = labs[docker].stdin, labs[docker].stdout
                assert asked is not None  # noqa: S101 - both are pipes
                assert said is not None  # noqa: S101
                asked.write(f"{pair}\n")
                asked.flush()
                line = said.readline()
                if not line:
                    raise SystemExit(f"the lab with Docker {docker} has ended: what it said is above")
                rows.append(Row(**json.loads(line)))
                kept.store(rows, results)
    print("\n".join(compared(rows)))  # noqa: T201 - the result


if __name__ == "__main__":
    if sys.argv[1] == "lab":
        _serve(sys.argv[2])
    else:
        main(int(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else RESULTS)
