"""A Python service that knows itself: threads, temporary files, mappings, clocks; and a client that questions it."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from benchmarks.workloads.client import Client
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sealift.host.ssh import Connection

PORT = 7000
START_TIMEOUT_S = 30


def start(
    host: Connection,
    name: str,
    address: str,
    network: str,
    *,
    say: Callable[[str], None],
    options: Sequence[str] = (),
) -> None:
    """Run the service on a host; it keeps its data in the volume NAME-data. `options` are more of `docker run`."""
    tag = images.provide(host, images.PYTHON, say=say)
    script = (files("benchmarks.workloads") / "services" / "service.py").read_text()
    host.run(
        [
            *("docker", "run", "--detach", "--name", name, "--network", network, "--ip", address),
            *("--volume", f"{name}-data:/home/workload", *options),
            *(tag, "python3", "-u", "-c", script, str(PORT)),
        ]
    )
    wait = f"import socket,time\nwhile socket.socket().connect_ex(('127.0.0.1', {PORT})): time.sleep(0.05)"
    host.run(["docker", "exec", name, "python3", "-c", wait], timeout_s=START_TIMEOUT_S)


def client(host: Connection, address: str) -> Client:
    """The questioning client, on the client's host. Its findings carry the first and the last report (`raw`)."""
    return Client(host, "service_watch.py", address, str(PORT))
