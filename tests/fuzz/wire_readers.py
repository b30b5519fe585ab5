"""Fuzz whatever reads from a network with atheris, by hand: it stays out of CI.

    PYTHONPATH=. nice -n 19 python tests/fuzz/wire_readers.py -runs=1000000 -max_len=4096

Each input goes to one reader, which its first byte chooses: agents, the gateway's decider, the provider's gate, the
guest. Anything but a value or an AgentError ends the run, and so does an input that takes over 100 ms of processor
time.
A folder named on the command line keeps what is found.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "host"))

with atheris.instrument_imports(
    include=["sealift_agent", "sealift.provider", "sealift.processor.wire", "sealift_guest.guest"]
):
    from wire_targets import HOSTILE, TARGETS, seeds

    from sealift_agent.wire import AgentError

LIMIT_S = 0.1
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
        # The machine may have paused: only what is slow twice is the reader's fault.
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
    with contextlib.suppress(AgentError):
        TARGETS[name](data)
    return time.thread_time() - start


def report() -> None:
    for name in NAMES:
        sys.stderr.write(f"{name:20} {count[name]:>9} inputs, slowest {slowest[name] * 1000:6.2f} ms\n")


def main() -> None:
    arguments = list(sys.argv)
    if not any(Path(each).is_dir() for each in arguments[1:]):
        folder = Path(tempfile.mkdtemp(prefix="sealift-fuzz-"))
        for number, name in enumerate(NAMES):
            for position, seed in enumerate((seeds()[name], *HOSTILE)):
                (folder / f"{name}-{position}").write_bytes(bytes([number]) + seed[:4000])
        arguments.append(str(folder))
    atheris.Setup(arguments, attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
