"""PostgreSQL with its data in a volume, and a client whose eight connections write to it without pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.workloads.client import Client
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.host.ssh import Connection

PORT = 5432
WRITERS = 8
START_TIMEOUT_S = 120
TABLES = f"""
CREATE TABLE log (writer int, number int, PRIMARY KEY (writer, number));
CREATE TABLE counter (writer int PRIMARY KEY, number int NOT NULL);
INSERT INTO counter SELECT writer, 0 FROM generate_series(0, {WRITERS - 1}) AS writer;
"""  # noqa: S608 - numbers of our own

_WAIT = (
    "PATH=/usr/lib/postgresql/17/bin:$PATH; until pg_isready -q -h /tmp -d postgres; do sleep 0.1; done; "
    'exec psql -q -h /tmp -v ON_ERROR_STOP=1 -d postgres -c "$1"'
)
TABLES_COMMAND = ["sh", "-c", _WAIT, "tables", TABLES]
"""Run in the container: waits for PostgreSQL and makes the client's tables."""


def start(host: Connection, name: str, address: str, network: str, *, say: Callable[[str], None]) -> None:
    """Run PostgreSQL on a host, its data in the volume NAME-data, and make the client's tables."""
    tag = images.provide(host, images.POSTGRESQL, say=say)
    host.run(
        [
            *("docker", "run", "--detach", "--name", name, "--network", network, "--ip", address),
            *("--volume", f"{name}-data:/home/workload", tag),
        ]
    )
    host.run(["docker", "exec", name, *TABLES_COMMAND], timeout_s=START_TIMEOUT_S)


def client(host: Connection, address: str, pause_s: float = 0) -> Client:
    """The writing client, on the client's host."""
    return Client(host, "postgresql_writers.py", address, str(PORT), str(WRITERS), str(pause_s))
