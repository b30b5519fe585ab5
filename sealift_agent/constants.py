"""What hosts and the controller both count on, and no message says."""

from __future__ import annotations

INTERFACE = "sealift-wg"
"""The tunnel's, on every host and on the gateway. `/usr/libexec/sealift/network` makes it."""

BRIDGE = "sealift-wl"
"""The Docker bridge of the workloads; a name of our own, so that rules can name it before it exists."""

PAGE_BYTES = 4096
"""Of memory, as CRIU's images count it."""
