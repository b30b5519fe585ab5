"""`python3 agent.pyz ROLE`: serve the controller on standard input and output."""

import contextlib
import os
import signal
import sys
from pathlib import Path

from sealift_agent import destination, facts, gateway, source
from sealift_agent.memory import pager
from sealift_agent.wire import Controller

ROLES = {"source": source.main, "destination": destination.main, "gateway": gateway.main, "facts": facts.main}
ROLES |= {"pager": pager.main, "routes": gateway.restore_routes, "keep": gateway.keep_on}

signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the controller's end is seen as the end of standard input
NICE = -10
"""On a busy host all that is done here, the freeze included, would wait for its turn."""

with contextlib.suppress(OSError):  # a host may not let us
    os.nice(NICE)
    # Where the kernel shares processors among sessions first (sched(7), autogroup), the session's own word counts.
    Path("/proc/self/autogroup").write_text(f"{NICE}")
ROLES[sys.argv[1]](Controller())
