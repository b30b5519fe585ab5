"""The flow `migrate` for a worker of the matrix: it is held at the moment that the run's environment names."""

from __future__ import annotations

import os
from contextlib import ExitStack

from benchmarks.faults.migrating import held
from benchmarks.faults.moments import HELD_AT, moment
from flows.migrate import migrate

__all__ = ["migrate"]

_until_the_process_ends = ExitStack()

if name := os.environ.get(HELD_AT):
    _until_the_process_ends.enter_context(held(moment(name)))
