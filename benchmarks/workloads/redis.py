"""Redis with a given amount of data, and a client that increments one counter without pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.workloads.client import Client
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.host.ssh import Connection

PORT = 6379
VALUE_BYTES = 900
PER_KEY_BYTES = 1050
"""What a key with such a value takes in Redis, measured by `INFO memory`."""


def start(
    host: Connection, name: str, address: str, network: str, memory_mb: int, *, say: Callable[[str], None]
) -> None:
    """Run Redis on a host under a workload's address and fill it."""
    tag = images.provide(host, images.REDIS, say=say)
    command = [*images.REDIS.command, "--enable-debug-command", "local"]
    host.run(
        ["docker", "run", "--detach", "--name", name, "--network", network, "--ip", address, tag, *command]
    )
    host.run(["docker", "exec", name, *fill_command(memory_mb)], timeout_s=300)


def fill_command(memory_mb: int) -> list[str]:
    """Run in the container: waits for Redis and gives it that much data."""
    keys = str(memory_mb * 1_000_000 // PER_KEY_BYTES)
    wait = 'until redis-cli ping >/dev/null 2>&1; do sleep 0.1; done; exec "$@"'
    return ["sh", "-c", wait, "fill", "redis-cli", "DEBUG", "POPULATE", keys, "key", str(VALUE_BYTES)]


def client(host: Connection, address: str, pause_s: float = 0) -> Client:
    """The counting client, on the client's host. Without a pause it takes a whole processor of the server."""
    return Client(host, "redis_counter.py", address, str(PORT), str(pause_s))
