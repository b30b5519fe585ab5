"""Run several labs at once, since cells mostly wait. Each has its own network namespace and run directory.

As a program (`python -m benchmarks.faults.labs KIND`) it is one of these labs: it reads names of cells from standard
input and prints a verdict as JSON for each.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.faults import matrix
from benchmarks.faults.cell import Verdict
from benchmarks.faults.faults import cells
from benchmarks.faults.orchestrator import Orchestrator
from sealift.lab import images, lab
from sealift.lab.plan import kind_of
from sealift.paths import run_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.faults.faults import Cell
    from sealift.lab.plan import Kind

END_S = 300
"""Seconds that a lab may take to end: a running cell is finished first."""


def trials(chosen: Sequence[Cell], jobs: int, kind: Kind) -> Iterator[Verdict]:
    """Try the cells in so many labs. Yields verdicts as they come. A lab that dies is a verdict on its cell."""
    images.build(images.REDIS, say=lambda _: None)  # built here, since the labs have no network
    waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
    for cell in chosen:
        waiting.put(cell)
    found: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
    with ExitStack() as stack:
        for number in range(min(jobs, len(chosen))):
            process = stack.enter_context(_lab(number, kind))
            threading.Thread(target=_feed, args=(process, waiting, found), daemon=True).start()
        for _ in chosen:
            yield found.get()


@contextmanager
def _lab(number: int, kind: Kind) -> Iterator[subprocess.Popen[str]]:
    """The process of one lab. At the end of the block the lab is down."""
    process = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-m", __name__, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SEALIFT_RUN": str(run_dir() / f"lab-{number}")},
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.terminate()
        process.wait(END_S)


def _feed(
    process: subprocess.Popen[str], waiting: queue.SimpleQueue[Cell], found: queue.SimpleQueue[Verdict]
) -> None:
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    while True:
        try:
            cell = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            process.stdin.write(f"{cell.name}\n")
            process.stdin.flush()
            found.put(matrix.from_fields(json.loads(process.stdout.readline())))
        except (OSError, ValueError):
            found.put(Verdict(cell.name, ("its lab has died",), None, (), 0.0))


def main(kind: str) -> None:
    """Run one lab, as long as cells come in."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(["ip", "link", "set", "lo", "up"])
    asked = (cells([line.strip()], kind_of(kind))[0] for line in sys.stdin)
    try:
        lab.up(kind_of(kind), say=lambda _: None)
        with Orchestrator.ready() as orchestrator:
            for verdict in matrix.trials(asked, orchestrator, kind_of(kind)):
                print(json.dumps(asdict(verdict)), flush=True)  # noqa: T201 - the answer
    except KeyboardInterrupt:
        pass
    finally:
        lab.down()


if __name__ == "__main__":
    main(*sys.argv[1:])
