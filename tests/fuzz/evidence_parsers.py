"""Fuzz every parser of the evidence library with atheris, by hand: it stays out of CI.

    PYTHONPATH=. nice -n 19 python tests/fuzz/evidence_parsers.py -runs=1000000 -max_len=8192

Each input goes to one parser, which its first byte chooses. Anything but a value or the library's own
error ends the run, and so does an input that takes over 50 ms of processor time. A first run takes its
seeds from labs of its own; a folder named on the command line keeps what is found.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "evidence"))

with atheris.instrument_imports(include=["sealift.evidence"]):
    from evidence_targets import TARGETS, seeds

import contextlib

from sealift.errors import UnusableInput

LIMIT_S = 0.050
REPORT_EVERY = 100_000
NAMES = sorted(TARGETS)
slowest: dict[str, float] = dict.fromkeys(NAMES, 0.0)
count: dict[str, int] = dict.fromkeys(NAMES, 0)


def attempt(data: bytes) -> None:
    if not data:
        return
    name = NAMES[data[0] % len(NAMES)]
    taken = _time(name, data[1:])
    if taken > LIMIT_S:
        # The machine may have paused: only what is slow twice is the parser's fault.
        taken = min(taken, _time(name, data[1:]))
    slowest[name] = max(slowest[name], taken)
    count[name] += 1
    if sum(count.values()) % REPORT_EVERY == 0:
        report()
    if taken > LIMIT_S:
        message = f"{name} took {taken * 1000:.0f} ms"
        raise TimeoutError(message)


def _time(name: str, data: bytes) -> float:
    start = time.thread_time()
    with contextlib.suppress(UnusableInput):
        TARGETS[name](data)
    return time.thread_time() - start


def report() -> None:
    for name in NAMES:
        sys.stderr.write(f"{name:20} {count[name]:>9} inputs, slowest {slowest[name] * 1000:6.2f} ms\n")


def main() -> None:
    arguments = list(sys.argv)
    if not any(Path(each).is_dir() for each in arguments[1:]):
        folder = Path(tempfile.mkdtemp(prefix="sealift-fuzz-"))
        for name, seed in seeds().items():
            (folder / name).write_bytes(bytes([NAMES.index(name)]) + seed)
        arguments.append(str(folder))
    atheris.Setup(arguments, attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
