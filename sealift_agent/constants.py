"""What hosts and the controller both count on, and no message says."""

from __future__ import annotations

INTERFACE = "sealift-wg"
"""The tunnel's, on every host and on the gateway. `/usr/libexec/sealift/network` makes it."""

PAGE_BYTES = 4096
"""Of memory, as CRIU's images count it."""
