"""`python3 agent.pyz ROLE`: serve the controller on standard input and output."""

import contextlib
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from sealift_agent.wire import Controller

ROLES = {
    "source": ("source", "main"),
    "destination": ("destination", "main"),
    "gateway": ("gateway", "main"),
    "facts": ("facts", "main"),
    "pager": ("memory.pager", "main"),
    "routes": ("gateway", "restore_routes"),
    "keep": ("gateway", "keep_on"),
}
"""Of each role its module, which is imported for it alone, and the function that serves the controller."""

signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the controller's end is seen as the end of standard input
NICE = -10
"""On a busy host all that is done here, the freeze included, would wait for its turn."""

with contextlib.suppress(OSError):  # a host may not let us
    os.nice(NICE)
    # Where the kernel shares processors among sessions first (sched(7), autogroup), the session's own word counts.
    Path("/proc/self/autogroup").write_text(f"{NICE}")
module, function = ROLES[sys.argv[1]]
getattr(import_module(f"sealift_agent.{module}"), function)(Controller())
