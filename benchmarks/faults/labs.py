"""Several labs at once, each in a network namespace and a run directory of its own: cells wait more than they compute.

As a program (`python -m benchmarks.faults.labs KIND`) it is one of them: it reads names of cells from standard input
and prints a verdict as JSON for each.
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
"""How long a lab may take to end: a cell that is under way comes to its end."""


def trials(chosen: Sequence[Cell], jobs: int, kind: Kind) -> Iterator[Verdict]:
    """Try the cells in so many labs. Verdicts come as they are found; a lab that dies is a verdict on its cell."""
    images.build(images.REDIS, say=lambda _: None)  # where there is a network: its labs have none
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
    assert process.stdin is not None  # noqa: S101 - both were asked for
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
    """One lab, for as long as cells come in."""
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
