"""`python3 agent.pyz ROLE`: serve the controller on standard input and output."""

import signal
import sys

from sealift_agent import destination, facts, gateway, pager, source
from sealift_agent.wire import Controller

ROLES = {"source": source.main, "destination": destination.main, "gateway": gateway.main, "facts": facts.main}
ROLES["pager"] = pager.main

signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the controller's end is seen as the end of standard input
ROLES[sys.argv[1]](Controller())
