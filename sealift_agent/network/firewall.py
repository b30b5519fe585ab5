"""Whether this host accepts only packets of the tunnel's peers at its tunnel address: rules of `network up`."""

from __future__ import annotations

import subprocess

TABLE = ("ip", "sealift")
"""Family and name, as `/usr/libexec/sealift/network` loads it."""


def is_loaded() -> bool:
    """Whether the rules are loaded. They are lost when nftables is flushed, as Debian's nftables.service does."""
    try:
        done = subprocess.run(
            ["nft", "list", "table", *TABLE], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and all(f"hook {hook} " in done.stdout for hook in ("input", "forward"))
