"""The rate of the way from the source to the destination, as iperf3 finds it: through the tunnel or beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.testbed import DESTINATION, SOURCE

if TYPE_CHECKING:
    from benchmarks.testbed import Testbed

PORT = 5201
SECONDS = 1
START_TIMEOUT_S = 10


def rate_mb_s(testbed: Testbed, *, plain: bool = False) -> float:
    """One TCP stream for a second, in megabytes a second as received."""
    host = testbed.inventory.host(DESTINATION)
    address = host.address if plain or host.tunnel_address is None else str(host.tunnel_address)
    server = testbed[DESTINATION].open(
        ["iperf3", "--server", "--one-off", "--forceflush", "--bind", address, "--port", str(PORT)]
    )
    try:
        server.settimeout(START_TIMEOUT_S)
        server.recv(1)  # it has said that it listens
        words = ["iperf3", "--client", address, "--port", str(PORT), "--time", str(SECONDS), "--json"]
        said = json.loads(testbed[SOURCE].run(words, timeout_s=30).stdout)
    finally:
        server.close()
    return float(said["end"]["sum_received"]["bits_per_second"]) / 8e6
